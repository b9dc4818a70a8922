//! The token of a WebSocket that a browser opens: it can't set `Authorization`, so that the token comes as a subprotocol,
//! `bearer.<token>`. It is taken out; what the upstream may choose among are the others.

use goldleaves_auth::TokenError;
use goldleaves_web::WebBody;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderValue, Request};

use crate::headers::{list, wanted_upgrade};

const PREFIX: &[u8] = b"bearer.";

/// Takes the token out of the subprotocols that an upgrade offers.
///
/// # Errors
/// There are two, or there is one beside `Authorization`.
pub(super) fn take_token(request: &mut Request<WebBody>) -> Result<Option<String>, TokenError> {
    let version = request.version();
    let headers = request.headers_mut();
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) || wanted_upgrade(headers, version).is_none() {
        return Ok(None);
    }
    let (tokens, others): (Vec<&[u8]>, Vec<&[u8]>) =
        list(headers, &SEC_WEBSOCKET_PROTOCOL).partition(|offered| offered.starts_with(PREFIX));
    let token = match tokens.as_slice() {
        [] => return Ok(None),
        [token] if !headers.contains_key(AUTHORIZATION) => token.get(PREFIX.len()..).unwrap_or_default(),
        _ => return Err(TokenError::Twice),
    };
    let token = String::from_utf8(token.to_vec()).map_err(|_| TokenError::Malformed)?;
    match HeaderValue::from_bytes(&others.join(&b", "[..])) {
        Ok(others) if !others.is_empty() => drop(headers.insert(SEC_WEBSOCKET_PROTOCOL, others)),
        _ => drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)),
    }
    Ok(Some(token))
}
