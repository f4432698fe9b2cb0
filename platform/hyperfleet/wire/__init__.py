"""gRPC interface of the generator: generator.proto and the modules that protoc makes from it.

generator.proto describes the interface for servers and clients in any language. The modules are generated
with `make proto` and never edited.
"""
