//! `POST /billing/stripe/webhook`: Stripe's own calls. The signature is checked first; what is wrong with one is not said, but of a
//! body that Stripe did sign it is.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use goldleaves_billing::stripe::StoredHint;
use goldleaves_stripe::{Hint, Secrets, SignatureError};
use http::{HeaderMap, StatusCode};

use crate::answer::ApiError;
use crate::push;
use crate::state::BillingApi;

/// The longest body that is read.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
/// The longest id and type that are kept.
const TEXT_BYTES_MAX: usize = 255;

pub(crate) async fn post(
    State(api): State<BillingApi>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Some(desk) = api.stripe() else { return Err(ApiError::NotFound) };
    let Some(secrets) = &desk.webhook else { return Err(ApiError::NotFound) };
    let metrics = desk.pusher.metrics();
    let body = body.map_err(|rejection| {
        metrics.hinted("unknown", "too_large");
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let most = format!("the body is longer than {BODY_BYTES_MAX} bytes, the most that is read here");
                ApiError::Body(StatusCode::PAYLOAD_TOO_LARGE, most)
            }
            status => ApiError::Body(status, rejection.body_text()),
        }
    })?;
    if let Err(error) = check(secrets, &headers, &body) {
        metrics.hinted("unknown", word_of(error));
        if desk.pusher.may_speak_of_webhooks() {
            tracing::warn!(%error, "calls of the webhook are not Stripe's, or not of now; they are refused and counted");
        }
        return Err(ApiError::Signature);
    }
    let hint = read(&body).inspect_err(|_| metrics.hinted("unknown", "unreadable"))?;
    if !push::is_heeded(&hint.kind) {
        metrics.hinted("other", "ignored");
        return Ok(StatusCode::OK.into_response());
    }
    let stored = StoredHint { id: hint.id, kind: hint.kind, related_id: hint.related_id };
    let is_new = desk.pusher.books().hint(&stored).await?;
    metrics.hinted(&stored.kind, if is_new { "taken" } else { "known" });
    if is_new {
        desk.pusher.wake();
    }
    Ok(StatusCode::OK.into_response())
}

/// The event of a body that Stripe signed. What of it is not as it should be is said: whoever has the secret may know.
fn read(body: &[u8]) -> Result<Hint, ApiError> {
    let hint = Hint::read(body)
        .map_err(|error| ApiError::BodyInvalid(format!("the body is no event of Stripe as JSON: {error}")))?;
    for (member, text) in [("id", Some(&hint.id)), ("related_object.id", hint.related_id.as_ref())] {
        let is_name = |text: &String| !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
        if push::is_heeded(&hint.kind) && !text.is_none_or(is_name) {
            let what = format!("{member}: must have 1 to {TEXT_BYTES_MAX} bytes and no NUL");
            return Err(ApiError::BodyInvalid(what));
        }
    }
    Ok(hint)
}

fn check(secrets: &Secrets, headers: &HeaderMap, body: &[u8]) -> Result<(), SignatureError> {
    let mut signatures = headers.get_all("stripe-signature").iter();
    let (Some(signature), None) = (signatures.next(), signatures.next()) else { return Err(SignatureError::Missing) };
    let signature = signature.to_str().map_err(|_| SignatureError::Missing)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    secrets.check(signature, body, i64::try_from(now).unwrap_or(i64::MAX))
}

const fn word_of(error: SignatureError) -> &'static str {
    match error {
        SignatureError::Missing => "unsigned",
        SignatureError::Forged => "forged",
        SignatureError::OutOfTime => "out_of_time",
    }
}
