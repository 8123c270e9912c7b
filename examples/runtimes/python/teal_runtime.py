"""What a runtime for teal needs to be a plugin in Python.

It needs python3-grpcio, and the messages of the protocol, which messages.sh
makes. runtime.proto is the protocol, with a comment for every message. Around it
stands the handshake of hashicorp/go-plugin, which any language can do:

 1. teal starts the program with TEAL_RUNTIME_PLUGIN set and its certificate in
    PLUGIN_CLIENT_CERT.
 2. The program makes a certificate for "localhost", serves gRPC with it on a
    unix socket in TMPDIR, takes teal's certificate and no other, and prints one
    line: 1|1|unix|SOCKET|grpc|CERTIFICATE, the last in base64 without padding.
 3. Besides teal.plugin.v1.RuntimeService it serves grpc.health.v1.Health,
    plugin.GRPCController, whose Shutdown ends it, and plugin.GRPCBroker, over
    which teal tells where it serves hosts: a ConnInfo with the id that
    Configure brings.
 4. A call carries a handle. With it teal.plugin.v1.HostsService runs commands
    on the host, until the call has ended.
"""

import itertools
import os
import queue
import subprocess
import sys
import threading
from concurrent import futures

import grpc

import broker_pb2
import runtime_pb2 as pb

COOKIE = ("TEAL_RUNTIME_PLUGIN", "4b8f0c1e-runtime")


class Problem(Exception):
    """An error with one of the kinds of package plugins, such as "not found"."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class CommandFailed(Exception):
    """A command on the host exited with a code other than 0."""

    def __init__(self, error):
        super().__init__(error.text)
        self.error = error


class Host:
    """A host, for the time of one call."""

    def __init__(self, hosts, call):
        self.name, self._hosts, self._call = call.host, hosts, call

    def stream(self, args, start, rest):
        """Run a command in the place of one that teal has started with start, and
        hand its streams through."""
        inner = pb.CommandStart(call=self._call, args=args, env=start.env,
                                stdin=start.stdin, stdout=start.stdout, stderr=start.stderr)
        rpc = self._hosts.run(itertools.chain([pb.CommandInput(start=inner)], rest if start.stdin else []))
        self._hosts.running[self._call.handle] = rpc
        for part in rpc:
            if part.end.error.HasField("exit"):  # of the command that was asked for
                part.end.error.exit.args[:] = start.args
            yield part

    def run(self, *args, stdin=b"", env=None):
        """Run a command on the host and return what it wrote."""
        start = pb.CommandStart(call=self._call, args=args, env=env or {}, stdin=True, stdout=True, stderr=True)
        parts = [pb.CommandInput(start=start)]
        parts += [pb.CommandInput(stdin=stdin[i:i + 65536]) for i in range(0, len(stdin), 65536)]
        parts += [pb.CommandInput(stdin_end=True)]
        out = b""
        rpc = self._hosts.run(iter(parts))
        self._hosts.running[self._call.handle] = rpc
        for part in rpc:
            out += part.stdout
            if part.WhichOneof("part") == "end" and part.end.HasField("error"):
                raise CommandFailed(part.end.error)
        return out


def _error(error):
    if isinstance(error, CommandFailed):
        return error.error
    if isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.CANCELLED:
        return pb.Error(text="cancelled", canceled=True)
    if isinstance(error, Problem):
        cause = pb.Error(text=str(error))
        return pb.Error(text=str(error), classified=pb.Classified(kind=error.kind), causes=[cause])
    return pb.Error(text=f"{type(error).__name__}: {error}")


class _Hosts:
    """The way back to teal."""

    def __init__(self, credentials):
        self._credentials, self._known, self._ready = credentials, {}, threading.Condition()
        self.run, self.running = None, {}  # by handle: the command of a call

    def cancel(self, request, _):
        rpc = self.running.get(request.handle)
        return pb.CancelResponse(found=rpc is not None and rpc.cancel())

    def start_stream(self, infos, _):
        for info in infos:
            with self._ready:
                self._known[info.service_id] = info.address
                self._ready.notify_all()
        return iter(())

    def connect(self, service):
        with self._ready:
            if not self._ready.wait_for(lambda: service in self._known, 5):
                raise Problem("unavailable", "teal did not tell where it serves hosts")
        channel = grpc.secure_channel("unix:" + self._known[service], self._credentials,
                                      [("grpc.ssl_target_name_override", "localhost")])
        self.run = channel.stream_stream("/teal.plugin.v1.HostsService/Run",
                                         pb.CommandInput.SerializeToString, pb.CommandOutput.FromString)


def _services(runtime, hosts, stopped):
    def configure(request, _):
        hosts.connect(request.broker_id)
        return pb.Capabilities(version=runtime.version, **{
            ability: hasattr(runtime, ability) for ability in ("restart", "set_restart_policy", "logs", "local_commands")})

    def unary(request_type, response_type, method):
        def serve(request, _):
            call = request if isinstance(request, pb.Call) else request.call
            try:
                return method(Host(hosts, call), request)
            except Exception as error:  # all of them are for teal to tell
                return response_type(error=_error(error))
            finally:
                hosts.running.pop(call.handle, None)
        return grpc.unary_unary_rpc_method_handler(serve, request_type.FromString, response_type.SerializeToString)

    def pull(request, _):
        try:
            yield pb.PullResponse(image=runtime.pull(Host(hosts, request.call), request))
        except Exception as error:
            yield pb.PullResponse(error=_error(error))
        finally:
            hosts.running.pop(request.call.handle, None)

    def logs(request, _):
        try:
            yield pb.LogsResponse(output=runtime.logs(Host(hosts, request.call), request))
        except Exception as error:
            yield pb.LogsResponse(error=_error(error))
        finally:
            hosts.running.pop(request.call.handle, None)

    def execute(parts, _):
        start = next(parts).start
        host = Host(hosts, start.call)
        try:
            yield from host.stream(runtime.exec(host, start), start, parts)
        except Exception as error:
            yield pb.CommandOutput(end=pb.Done(error=_error(error)))
        finally:
            hosts.running.pop(start.call.handle, None)

    def shutdown(_, __):
        stopped.put(None)
        return b""

    def same(message):
        return message

    raw = (same, same)
    done = lambda name: lambda host, request: getattr(runtime, name)(host, request) or pb.Done()
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in {
        "teal.plugin.v1.RuntimeService": {
            "Configure": grpc.unary_unary_rpc_method_handler(
                configure, pb.ConfigureRequest.FromString, pb.Capabilities.SerializeToString),
            "Cancel": grpc.unary_unary_rpc_method_handler(
                hosts.cancel, pb.CancelRequest.FromString, pb.CancelResponse.SerializeToString),
            "Probe": unary(pb.Call, pb.ProbeResponse, runtime.probe),
            "Pull": grpc.unary_stream_rpc_method_handler(pull, pb.PullRequest.FromString, pb.PullResponse.SerializeToString),
            "Create": unary(pb.CreateRequest, pb.CreateResponse, runtime.create),
            "Exec": grpc.stream_stream_rpc_method_handler(
                execute, pb.CommandInput.FromString, pb.CommandOutput.SerializeToString),
            "List": unary(pb.ListRequest, pb.ListResponse, runtime.list),
            "Stop": unary(pb.StopRequest, pb.Done, done("stop")),
            "Remove": unary(pb.ContainerRequest, pb.Done, done("remove")),
            # What a runtime has not, teal does not ask for.
            "Restart": unary(pb.StopRequest, pb.Done, done("restart")),
            "SetRestartPolicy": unary(pb.SetRestartPolicyRequest, pb.Done, done("set_restart_policy")),
            "LocalCommands": unary(pb.StopRequest, pb.LocalCommandsResponse,
                                   lambda host, request: runtime.local_commands(host, request)),
            "Logs": grpc.unary_stream_rpc_method_handler(logs, pb.LogsRequest.FromString, pb.LogsResponse.SerializeToString),
        },
        "plugin.GRPCBroker": {"StartStream": grpc.stream_stream_rpc_method_handler(
            hosts.start_stream, broker_pb2.ConnInfo.FromString, same)},
        "plugin.GRPCController": {"Shutdown": grpc.unary_unary_rpc_method_handler(shutdown, *raw)},
        # A HealthCheckResponse with the status SERVING.
        "grpc.health.v1.Health": {"Check": grpc.unary_unary_rpc_method_handler(lambda _, __: b"\x08\x01", *raw)},
    }.items()]


def _certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    with open(key, "rb") as k, open(cert, "rb") as c:
        return k.read(), c.read()


def serve(runtime):
    """Serve runtime to the teal that started this process, until it is done.

    Its methods are called by several threads, each with the host and the message.
    probe, pull, create, exec, list, stop and remove it must have; exec returns the
    command that does on the host what was asked for in the container. The others
    are abilities, and missing ones are no mistake.
    """
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        sys.exit("This is a plugin of teal, which starts it.")
    teal = os.environ["PLUGIN_CLIENT_CERT"].encode()
    folder = os.environ["TMPDIR"]
    key, cert = _certificate(folder)
    hosts = _Hosts(grpc.ssl_channel_credentials(teal, key, cert))
    stopped = queue.Queue()
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[
        ("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)])
    server.add_generic_rpc_handlers(_services(runtime, hosts, stopped))
    socket = os.path.join(folder, "plugin.sock")
    server.add_secure_port("unix:" + socket, grpc.ssl_server_credentials([(key, cert)], teal, True))
    server.start()
    der = "".join(cert.decode().split("-----")[2].split()).rstrip("=")
    print(f"1|1|unix|{socket}|grpc|{der}", flush=True)
    stopped.get()
    server.stop(1).wait()
