"""Pure rules: values in, values out. No clock, file, socket, process, log or gRPC."""
