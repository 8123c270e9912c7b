#!/bin/sh
# Makes the messages of the protocol, runtime_pb2.py and broker_pb2.py, with
# protoc. On Debian: apt-get install protobuf-compiler libprotobuf-dev
cd "$(dirname "$0")" && exec protoc --python_out=. -I . -I /usr/include runtime.proto broker.proto
