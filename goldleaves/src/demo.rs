//! A small upstream to call where there is none yet: it answers every path with JSON that says what arrived.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use goldleaves_runtime::{OnCancel, OnFailure, Stage, Supervisor, TaskRule};
use goldleaves_web::{ListenerOptions, ServeOptions, Stop, WebBody, bind, serve};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;

/// The units of a call under `/api/v1/ai` in the demo, so that a bill with more than whole calls can be seen.
const AI_UNITS: HeaderValue = HeaderValue::from_static("2.5");
const USAGE_UNITS: HeaderName = HeaderName::from_static("x-usage-units");

/// Starts it on a free port of this machine.
///
/// # Errors
/// No port can be listened on.
pub(crate) fn start(supervisor: &mut Supervisor) -> Result<SocketAddr> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = bind(anywhere, ListenerOptions::default()).context("the demo upstream can't listen")?;
    let address = listener.local_addr()?;
    let rule =
        TaskRule { name: "demo-upstream", stage: Stage::Flow, on_cancel: OnCancel::Abort, on_failure: OnFailure::Stop };
    supervisor.spawn_once(rule, async move |stop| {
        serve(listener, tower::service_fn(answer), ServeOptions::default(), Stop::on(stop)).await;
        anyhow::Ok(())
    });
    Ok(address)
}

async fn answer(request: Request<WebBody>) -> Result<Response<WebBody>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off is answered as far as it came: there is nobody left to read it anyway.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path();
    let text = json!({
        "message": "This is the demo upstream. Set UPSTREAM_URL to put your own service here.",
        "method": head.method.as_str(),
        "path": path,
        "tenant": header(&head.headers, "x-tenant-id"),
        "user": header(&head.headers, "x-user-id"),
        "request_id": header(&head.headers, "x-request-id"),
        "body_bytes": body.len(),
    });
    let mut response = Response::new(WebBody::full(format!("{text:#}\n")));
    if head.method == Method::POST {
        *response.status_mut() = StatusCode::CREATED;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if path.starts_with("/api/v1/ai") {
        response.headers_mut().insert(USAGE_UNITS, AI_UNITS);
    }
    Ok(response)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
