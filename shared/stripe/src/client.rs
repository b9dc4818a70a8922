//! The four calls.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use goldleaves_https::{Base, CertificatesError, HttpsClient, Limits};
use goldleaves_runtime::Secret;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;

use crate::VERSION;
use crate::answer::Sent;
use crate::reading::{ReadError, Report, StripeMeter, Sums, SumsPage, Window, read};

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), answer: Duration::from_secs(20), answer_bytes_max: 4 * 1024 * 1024 };
/// The most sums that Stripe puts into an answer.
const PAGE: &str = "100";

/// Stripe, called with one key. Cheap to clone.
#[derive(Clone)]
pub struct Stripe {
    client: HttpsClient,
    base: Base,
    key: Secret,
}

/// Says whether money is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Live,
    /// It is not.
    Test,
}

/// A meter event, as it goes out: always the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The meter's event name.
    pub event_name: String,
    /// The customer whose usage it is.
    pub stripe_customer_id: String,
    /// The amount: a whole number.
    pub value: String,
    /// Names the event for 24 hours.
    pub identifier: String,
    /// When, in seconds since 1970.
    pub timestamp: i64,
    /// `Idempotency-Key`.
    pub key: String,
}

impl Stripe {
    /// Stripe at this address.
    ///
    /// # Errors
    /// The machine has no root certificates.
    pub fn new(base: Base, key: Secret) -> Result<Self, CertificatesError> {
        Ok(Self { client: HttpsClient::for_base(&base, LIMITS)?, base, key })
    }

    /// Returns whether the key is of live or of test mode, as far as it says.
    pub fn mode(&self) -> Option<Mode> {
        let mode = self.key.expose().split('_').nth(1);
        match mode {
            Some("live") => Some(Mode::Live),
            Some("test") => Some(Mode::Test),
            _ => None,
        }
    }

    /// Sends a meter event once.
    pub async fn send(&self, event: &NewEvent) -> Sent {
        let body = Serializer::new(String::new())
            .append_pair("event_name", &event.event_name)
            .append_pair("payload[stripe_customer_id]", &event.stripe_customer_id)
            .append_pair("payload[value]", &event.value)
            .append_pair("identifier", &event.identifier)
            .append_pair("timestamp", &event.timestamp.to_string())
            .finish();
        let request = self.request(Method::POST, "/v1/billing/meter_events").and_then(|mut request| {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, form);
            request.headers_mut().insert("idempotency-key", HeaderValue::try_from(&event.key)?);
            *request.body_mut() = Full::new(Bytes::from(body));
            Ok(request)
        });
        match request {
            Ok(request) => Sent::of(self.client.call(request).await),
            Err(error) => Sent::NotConnected(error.to_string()),
        }
    }

    /// Reads a meter.
    ///
    /// # Errors
    /// Stripe is away or refuses.
    pub async fn meter(&self, id: &str) -> Result<StripeMeter, ReadError> {
        self.get(&format!("/v1/billing/meters/{}", segment(id))).await
    }

    /// The sums that a meter has for a customer: one for the whole window, or one for each of its hours in which there is
    /// any. They come in pages, of which each is a call: `after` is what the page before says comes next.
    ///
    /// # Errors
    /// Stripe is away or refuses.
    pub async fn sums(&self, meter: &str, window: &Window, after: Option<&str>) -> Result<SumsPage, ReadError> {
        let page: Sums = self.get(&sums_path(meter, window, after)).await?;
        let next = page.data.last().filter(|_| page.has_more).map(|sum| sum.id.clone());
        Ok(SumsPage { sums: page.data, next })
    }

    /// Reads what an event of a webhook is about.
    ///
    /// # Errors
    /// Stripe is away or refuses.
    pub async fn event(&self, id: &str) -> Result<Report, ReadError> {
        self.get(&format!("/v2/core/events/{}", segment(id))).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ReadError> {
        read(self.client.call(self.request(Method::GET, path)?).await)
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut key = HeaderValue::try_from(format!("Bearer {}", self.key.expose()))?;
        key.set_sensitive(true);
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = self.base.join(path)?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, key);
        headers.insert("stripe-version", HeaderValue::from_static(VERSION));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("goldleaves/", env!("CARGO_PKG_VERSION"))));
        Ok(request)
    }
}

fn sums_path(meter: &str, window: &Window, after: Option<&str>) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("customer", &window.stripe_customer_id);
    query.append_pair("start_time", &window.start.to_string());
    query.append_pair("end_time", &window.end.to_string());
    if window.is_by_hour {
        query.append_pair("value_grouping_window", "hour");
    }
    query.append_pair("limit", PAGE);
    if let Some(after) = after {
        query.append_pair("starting_after", after);
    }
    format!("/v1/billing/meters/{}/event_summaries?{}", segment(meter), query.finish())
}

/// An id as a segment of a path.
fn segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect()
}

impl fmt::Debug for Stripe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Stripe").field("base", &self.base).finish_non_exhaustive()
    }
}
