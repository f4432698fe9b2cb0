"""The generator's gRPC interface as it stands on the wire: generator.proto and what protoc makes of it.

Servers and clients of any language are made from generator.proto; the modules beside it are generated
(`make proto`) and never edited.
"""
