"""One file per gRPC service: message in, call, message out. No decisions here."""
