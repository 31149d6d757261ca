"""A device plugin as vendors write them, on gRPC of another make than the agent's.

Usage: dongles.py DIRECTORY RESOURCE SOCKET [--options] [--cdi NAME] [--watched REGISTRY]
It offers the devices named in the file DIRECTORY/devices ("a b !c": c is unhealthy), looks at that file again and again, and
registers anew whenever its own socket has been removed; with --watched it waits for a kubelet that looks into REGISTRY. What it is
asked is written to DIRECTORY/calls, a line each.
"""
import os
import sys
import threading
import time
from concurrent import futures

import grpc

from wire import field, fields, number

DIRECTORY, RESOURCE, SOCKET = sys.argv[1:4]
OPTIONS = "--options" in sys.argv
CDI = sys.argv[sys.argv.index("--cdi") + 1] if "--cdi" in sys.argv else None
WATCHED = sys.argv[sys.argv.index("--watched") + 1] if "--watched" in sys.argv else None
SERVICE = "v1beta1.DevicePlugin"


def flag(tag, value):
    return number(tag << 3) + number(int(value))


def said(line):
    with open(os.path.join(DIRECTORY, "calls"), "a") as calls:
        calls.write(line + "\n")


def devices():
    with open(os.path.join(DIRECTORY, "devices")) as text:
        return text.read().split()


def listing(names):
    one = lambda name: field(1, name.lstrip("!")) + field(2, "Unhealthy" if name.startswith("!") else "Healthy")
    return b"".join(field(1, one(name)) for name in names)


def options(_request, _context):
    said("options")
    return flag(1, OPTIONS) + flag(2, OPTIONS)


def watch(_request, context):
    last = None
    while context.is_active():
        names = devices()
        if names != last:
            yield listing(names)
            last = names
        time.sleep(0.1)


def allocate(request, context):
    out = b""
    for _, container in fields(request):
        ids = [value.decode() for _, value in fields(container)]
        said("allocate " + " ".join(ids))
        if "bad" in ids:
            context.abort(grpc.StatusCode.INTERNAL, "the dongle \u201cbad\u201d does not answer: 100 %")
        answer = field(1, field(1, "DONGLES") + field(2, ",".join(ids)))
        answer += field(2, field(1, "/dongles") + field(2, DIRECTORY) + flag(3, True))
        answer += field(3, field(1, "/dev/dongle") + field(2, "/dev/fuse") + field(3, "r"))
        answer += field(4, field(1, "vendor.example/note") + field(2, "ignored"))
        if CDI:
            answer += field(5, field(1, CDI))
        out += field(1, answer)
    return out


def preferred(request, _context):
    out = b""
    for _, container in fields(request):
        inside = fields(container)
        available = [value.decode() for tag, value in inside if tag == 1]
        must = [value.decode() for tag, value in inside if tag == 2]
        size = next(value for tag, value in inside if tag == 3)
        said("preferred %d of %s with %s" % (size, " ".join(available), " ".join(must)))
        last_first = must + [name for name in reversed(available) if name not in must]
        out += field(1, b"".join(field(1, name) for name in last_first[:size]))
    return out


def pre_start(request, _context):
    said("prestart " + " ".join(value.decode() for _, value in fields(request)))
    return b""


def info(_request, _context):
    said("info")
    return field(1, "DevicePlugin") + field(2, RESOURCE) + field(4, "v1beta1")


def told(request, _context):
    said("told " + " ".join(str(value) for _, value in fields(request)))
    return b""


def serve():
    plain = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(options),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(watch),
        "Allocate": grpc.unary_unary_rpc_method_handler(allocate),
        "GetPreferredAllocation": grpc.unary_unary_rpc_method_handler(preferred),
        "PreStartContainer": grpc.unary_unary_rpc_method_handler(pre_start),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, plain),))
    server.add_insecure_port("unix://" + os.path.join(WATCHED or DIRECTORY, SOCKET))
    if WATCHED:
        asked = {
            "GetInfo": grpc.unary_unary_rpc_method_handler(info),
            "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(told),
        }
        name = "pluginregistration.Registration"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, asked),))
    server.start()
    return server


def register():
    with grpc.insecure_channel("unix://" + os.path.join(DIRECTORY, "kubelet.sock")) as channel:
        call = channel.unary_unary("/v1beta1.Registration/Register")
        call(field(1, "v1beta1") + field(2, SOCKET) + field(3, RESOURCE), timeout=10)
        # A second one on the same connection, by another name, is refused with the reason.
        try:
            call(field(1, "v1beta1") + field(2, SOCKET) + field(3, "cpu"), timeout=10)
        except grpc.RpcError as error:
            said("refused %s %s" % (error.code().name, error.details()))
        try:
            channel.unary_unary("/v1beta1.Registration/Nothing")(b"", timeout=10)
        except grpc.RpcError as error:
            said("refused %s %s" % (error.code().name, error.details()))


def main():
    while True:
        server = serve()
        if WATCHED:
            server.wait_for_termination()
        try:
            register()
            print("registered", flush=True)
            while os.path.exists(os.path.join(DIRECTORY, SOCKET)):
                time.sleep(0.1)
        except grpc.RpcError as error:
            print("not registered:", error.code(), error.details(), flush=True)
            time.sleep(0.5)
        server.stop(0)


threading.current_thread().name = "dongles"
main()
