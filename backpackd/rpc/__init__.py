"""One file for each gRPC service: message in, call, message out. No decisions here."""
