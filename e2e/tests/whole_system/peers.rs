//! gRPC and WebSocket through the gateway with clients and servers that nobody here wrote.

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_testkit::peers::{self, Server};
use serde_json::json;

on_both!(grpc_through_the_gateway_is_grpc, websocket_through_the_gateway_is_websocket);

const GRPC_SERVER: &str = r#"
import grpc, threading, time
from concurrent import futures
left = threading.Semaphore(0)
codes = {code.value[0]: code for code in grpc.StatusCode}
def unary(request, context):
    said = dict(context.invocation_metadata())
    assert said["x-user-id"] and "x-tenant-id" in said, said
    context.set_trailing_metadata((("x-usage-units", "3"), ("x-more", "yes")))
    if "fail-with" in said:
        context.abort(codes[int(said["fail-with"])], "as it was asked: 50% \u00e9")
    return request
def remaining(request, context):
    return str(context.time_remaining()).encode()
def downward(request, context):
    for number in range(int(request)):
        yield str(number).encode()
def upward(requests, context):
    return str(sum(len(request) for request in requests)).encode()
def both(requests, context):
    context.add_callback(lambda: None if context.is_active() else left.release())
    for request in requests:
        yield request
def never(request, context):
    context.add_callback(left.release)
    while context.is_active():
        time.sleep(0.02)
    return b""
def has_left(request, context):
    return b"yes" if left.acquire(timeout=60) else b"no"
handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Remaining": grpc.unary_unary_rpc_method_handler(remaining),
    "Down": grpc.unary_stream_rpc_method_handler(downward),
    "Up": grpc.stream_unary_rpc_method_handler(upward),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Never": grpc.unary_unary_rpc_method_handler(never),
    "HasLeft": grpc.unary_unary_rpc_method_handler(has_left),
}
options = [("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)]
server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("judge.Judge", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"#;

/// Prints how many of its calls were billable.
const GRPC_CLIENT: &str = r#"
import grpc, queue, sys
address, token = sys.argv[1:]
options = [("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)]
channel = grpc.insecure_channel(address, options=options)
known = (("authorization", "Bearer " + token),)
billable = 0
def method(kind, name, service="judge.Judge"):
    return getattr(channel, kind)(f"/{service}/{name}")
def fails(ask, code, says=""):
    try:
        ask()
    except grpc.RpcError as error:
        assert error.code() == code and says in error.details(), (error.code(), error.details())
        return error
    raise AssertionError(f"no {code}")
unary = method("unary_unary", "Unary")
answer, call = unary.with_call(b"hello", metadata=known, timeout=60)
billable += 1
trailers = dict(call.trailing_metadata())
assert answer == b"hello" and trailers["x-more"] == "yes" and "x-usage-units" not in trailers, trailers
for code in grpc.StatusCode:
    if code.value[0]:
        failing = known + (("fail-with", str(code.value[0])),)
        error = fails(lambda: unary(b"", metadata=failing, timeout=60), code, "as it was asked: 50% \u00e9")
        assert dict(error.trailing_metadata())["x-more"] == "yes"
        billable += 1
long = bytes(range(256)) * (64 << 10)
assert unary(long, metadata=known, timeout=120) == long
billable += 1
left = float(method("unary_unary", "Remaining")(b"", metadata=known, timeout=45))
# The client rounds a deadline up.
assert 0 < left <= 46, left
billable += 1
down = [int(one) for one in method("unary_stream", "Down")(b"500", metadata=known, timeout=60)]
assert down == list(range(500))
billable += 1
up = method("stream_unary", "Up")((b"x" * 1000 for _ in range(500)), metadata=known, timeout=60)
assert up == b"500000", up
billable += 1
both = method("stream_stream", "Both")
asked = queue.Queue()
call = both(iter(asked.get, None), metadata=known, timeout=60)
for number in range(100):
    asked.put(b"%d" % number)
    assert next(call) == b"%d" % number, "each answer comes while the next question is not sent yet"
asked.put(None)
assert list(call) == [] and call.code() == grpc.StatusCode.OK
billable += 1
has_left = method("unary_unary", "HasLeft")
fails(lambda: method("unary_unary", "Never")(b"", metadata=known, timeout=1), grpc.StatusCode.DEADLINE_EXCEEDED)
assert has_left(b"", metadata=known, timeout=90) == b"yes", "a deadline ends the server's call"
asked = queue.Queue()
call = both(iter(asked.get, None), metadata=known, timeout=60)
asked.put(b"one")
assert next(call) == b"one"
call.cancel()
fails(lambda: next(call), grpc.StatusCode.CANCELLED)
asked.put(None)
assert has_left(b"", metadata=known, timeout=90) == b"yes", "a cancellation ends the server's call"
billable += 4
fails(lambda: unary(b"", timeout=60), grpc.StatusCode.UNAUTHENTICATED, "token_missing: ")
forged = (("authorization", "Bearer a.b.c"),)
fails(lambda: unary(b"", metadata=forged, timeout=60), grpc.StatusCode.UNAUTHENTICATED, "token_invalid: ")
foreign = known + (("x-tenant-id", "other"),)
fails(lambda: unary(b"", metadata=foreign, timeout=60), grpc.StatusCode.PERMISSION_DENIED, "tenant_forbidden: ")
fails(lambda: method("unary_unary", "x", "metrics")(b"", metadata=known, timeout=60), grpc.StatusCode.UNIMPLEMENTED)
fails(lambda: method("unary_unary", "x", "dead.Dead")(b"", metadata=known, timeout=60), grpc.StatusCode.UNAVAILABLE)
fails(lambda: unary(b"x" * (18 << 20), metadata=known, timeout=60), grpc.StatusCode.RESOURCE_EXHAUSTED)
fails(lambda: method("unary_unary", "None")(b"", metadata=known, timeout=60), grpc.StatusCode.UNIMPLEMENTED)
print(billable + 1)
"#;

async fn grpc_through_the_gateway_is_grpc(kind: Kind) {
    let server = Server::start(GRPC_SERVER).await.unwrap();
    let upstreams = json!([
        {"name": "judge", "addresses": [format!("http://127.0.0.1:{}", server.port())], "protocol": "h2"},
        {"name": "dead", "addresses": ["http://127.0.0.1:1"], "protocol": "h2"},
    ])
    .to_string();
    let routes =
        json!([{"path": "/judge.Judge", "upstream": "judge"}, {"path": "/dead.Dead", "upstream": "dead"}]).to_string();
    let settings = [
        ("UPSTREAMS", upstreams.as_str()),
        ("ROUTES", routes.as_str()),
        ("BILLABLE_ROUTES", "/judge.Judge,/dead.Dead"),
        ("REQUEST_BODY_BYTES_MAX", "17MiB"),
    ];
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let (address, token) = (deployment.gateway().unwrap().to_string(), deployment.token("acme").unwrap());
    let billed = peers::run(GRPC_CLIENT, &[&address, &token]).await;
    let billed: u64 = billed.unwrap_or_else(|error| panic!("{error:#}\n{}", server.log())).parse().unwrap();
    deployment.summary_of("acme", billed).await.unwrap();
    assert_eq!(deployment.tables().await.unwrap().contents().await.unwrap().len() as u64, billed);
}

const WEBSOCKET_SERVER: &str = r#"
from websockets.sync.server import serve
def handler(socket):
    for message in socket:
        if message == "headers":
            for name, value in socket.request.headers.raw_items():
                socket.send(f"{name.lower()}: {value}")
            socket.send("end")
        elif message == "bye":
            socket.close(4001, "as it was asked")
        else:
            socket.send(message)
with serve(handler, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"#;

const WEBSOCKET_CLIENT: &str = r#"
import sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
address, token = sys.argv[1:]
url = f"ws://{address}/api/v1/documents"
def headers(socket):
    socket.send("headers")
    return list(iter(socket.recv, "end"))
with connect(url, subprotocols=["chat", "bearer." + token], max_size=None) as socket:
    assert socket.subprotocol == "chat", socket.subprotocol
    long = bytes(range(256)) * 8192
    for message in ["hello", "\u00e9" * 1000, b"", long]:
        socket.send(message)
        assert socket.recv() == message
    seen = headers(socket)
    assert "sec-websocket-protocol: chat" in seen and not any(token in line for line in seen), seen
    socket.send("bye")
    try:
        socket.recv()
    except ConnectionClosed as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as it was asked"), closed
with connect(url, subprotocols=["chat"], additional_headers={"Authorization": "Bearer " + token}) as socket:
    socket.send("hello")
    assert socket.recv() == "hello"
for offered in [["chat"], ["chat", "bearer.x.y.z"], ["bearer." + token, "bearer.x"]]:
    try:
        connect(url, subprotocols=offered)
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
    else:
        raise AssertionError(offered)
print("done")
"#;

async fn websocket_through_the_gateway_is_websocket(kind: Kind) {
    let server = Server::start(WEBSOCKET_SERVER).await.unwrap();
    let upstream = format!("http://127.0.0.1:{}", server.port());
    let settings = [("UPSTREAM_URL", upstream.as_str()), ("WEBSOCKET_TOKEN", "true")];
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let (address, token) = (deployment.gateway().unwrap().to_string(), deployment.token("acme").unwrap());
    let done = peers::run(WEBSOCKET_CLIENT, &[&address, &token]).await;
    assert_eq!(done.unwrap_or_else(|error| panic!("{error:#}\n{}", server.log())), "done");
    deployment.summary_of("acme", 2).await.unwrap();
}
