//! The settings of the one-process program: those of all three roles.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use goldleaves_auth::{JwtSettings, SecretNeed};
use goldleaves_billing_api::BillingConfig;
use goldleaves_gateway::{Deployment, GatewayConfig, StreamSettings, Taken};
use goldleaves_ledger::sqlite_url;
use goldleaves_pricing::Rate;
use goldleaves_record::RecordOptions;
use goldleaves_runtime::Secret;
use goldleaves_runtime::settings::{Again, Common, Environment, Fingerprints, Values, parse, table};
use goldleaves_trace::TraceSettings;

const BILLING_ADDR: SocketAddr = here(8081);
const OPS_ADDR: SocketAddr = here(9090);

/// The settings of the one process.
#[derive(Debug)]
pub struct Config {
    /// Environment, logs, grace.
    pub common: Common,
    /// The settings by which tokens are verified and signed.
    pub jwt: JwtSettings,
    /// The gateway's part.
    pub gateway: GatewayConfig,
    /// The spool's part.
    pub record: RecordOptions,
    /// The billing API's part.
    pub billing: BillingConfig,
    /// `OPS_ADDR`.
    pub ops_addr: SocketAddr,
    /// `DATA_DIR`.
    pub data_dir: PathBuf,
    /// `DATABASE_URL`, else the file in `DATA_DIR`.
    pub database_url: Secret,
    /// `USAGE_RATE_CENTS`; unset changes no price.
    pub rate: Option<Rate>,
    /// `NATS_URL` and what belongs to it; `None` = events go from the spool straight to the ledger.
    pub stream: Option<StreamSettings>,
    /// Where traces go.
    pub traces: TraceSettings,
    /// The way the settings are read again.
    pub again: Option<Again>,
    /// The fingerprints of the settings at that reading.
    pub read: Fingerprints,
    /// The settings that are not the gateway's alone.
    pub taken: Taken,
}

impl Config {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let jwt = JwtSettings::read(values, environment, SecretNeed::Generated);
        let gateway = GatewayConfig::read(values, common.as_ref(), Deployment::Embedded);
        let record = RecordOptions::read(values);
        let billing = BillingConfig::read(values, common.as_ref(), BILLING_ADDR);
        let ops_addr = values.or_default(table::OPS_ADDR, parse::socket_address, OPS_ADDR);
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let database_url = database_url(values, data_dir.as_deref(), environment);
        let rate = read_rate(values);
        let stream = read_stream(values);
        let traces = TraceSettings::read(values);
        let (common, jwt, gateway) = (common?, jwt?, gateway?);
        Some(Self {
            taken: Taken::of(values, jwt.token_options(), common.logs, &gateway),
            common,
            jwt,
            gateway,
            record: record?,
            billing: billing?,
            ops_addr: ops_addr?,
            data_dir: data_dir?,
            database_url: database_url?,
            rate: rate?,
            stream: stream?,
            traces: traces?,
            again: values.again(),
            read: values.fingerprints(),
        })
    }
}

/// The settings of `goldleaves token`.
#[derive(Debug)]
pub struct TokenConfig {
    /// The settings by which tokens are signed.
    pub jwt: JwtSettings,
    /// `DATA_DIR`.
    pub data_dir: PathBuf,
    /// The settings that are probably not meant as they are.
    pub warnings: Vec<String>,
}

impl TokenConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let jwt = JwtSettings::read(values, environment, SecretNeed::Generated);
        let data_dir = values.required(table::DATA_DIR, parse::path);
        Some(Self { jwt: jwt?, data_dir: data_dir?, warnings: common?.warnings })
    }
}

/// `DATABASE_URL`, else the file in `DATA_DIR`.
pub fn database_url(values: &mut Values, data_dir: Option<&Path>, environment: Option<Environment>) -> Option<Secret> {
    match values.optional_discreet(table::DATABASE_URL, |text| goldleaves_ledger::database_url(text, environment))? {
        Some(url) => Some(url),
        None => data_dir.map(|data_dir| Secret::new(sqlite_url(&data_dir.join("goldleaves.db")))),
    }
}

/// `NATS_URL` and what belongs to it; unset = embedded, and the rest is not read. The outer `None` is a mistake.
pub(crate) fn read_stream(values: &mut Values) -> Option<Option<StreamSettings>> {
    if values.is_set(table::NATS_URL) {
        return StreamSettings::read(values).map(Some);
    }
    Some(None)
}

/// `USAGE_RATE_CENTS`; unset changes no price. The outer `None` is a mistake.
pub(crate) fn read_rate(values: &mut Values) -> Option<Option<Rate>> {
    values.optional(table::USAGE_RATE_CENTS, parse::from_str::<Rate>)
}

const fn here(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(settings: &[(&str, &str)]) -> String {
        let mut values = Values::load(settings.iter().copied(), None);
        let read = Config::read(&mut values);
        values.finish(read).map_or_else(|mistakes| mistakes.to_string(), |_| String::new())
    }

    #[test]
    fn a_mistake_hides_no_other() {
        let settings = [
            ("ENVIRONMENT", "moon"),
            ("ENABLE_DOCS", "perhaps"),
            ("DATABASE_URL", "mysql://hidden@host/database"),
            ("USAGE_RATE_CENTS", "free"),
        ];
        let text = mistakes(&settings);
        assert!(settings.iter().all(|(name, _)| text.contains(name)), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn production_says_whether_the_database_is_encrypted() {
        let mistakes = |url| {
            let secret = "3f1c09b7a2d84e6fb05d9c7713ae42c8";
            mistakes(&[("ENVIRONMENT", "production"), ("JWT_SECRET", secret), ("DATABASE_URL", url)])
        };
        let text = mistakes("postgresql://user:hunter2@host/database");
        assert!(
            text.contains("DATABASE_URL") && text.contains("has no sslmode") && !text.contains("hunter2"),
            "{text}"
        );
        assert_eq!(mistakes("postgresql://user:hunter2@host/database?sslmode=require"), "");
    }

    #[test]
    fn what_belongs_to_stripe_does_nothing_without_its_key() {
        assert_eq!(mistakes(&[]), "");
        let key = ("STRIPE_API_KEY", "rk_test_hunter2");
        let more = [("STRIPE_API_BASE", "http://127.0.0.1:1"), ("STRIPE_WEBHOOK_SECRET", "whsec_hunter2")];
        let all: Vec<_> = more.into_iter().chain([key, ("STRIPE_CALLS_PER_SECOND", "5")]).collect();
        assert_eq!(mistakes(&all), "");
        for setting in more {
            let text = mistakes(&[setting]);
            assert!(text.contains(setting.0) && text.contains("STRIPE_API_KEY") && !text.contains("hunter2"), "{text}");
        }
        for (name, wrong) in [
            ("STRIPE_API_BASE", "http://api.stripe.com"),
            ("STRIPE_API_BASE", "https://hunter2@api.stripe.com"),
            ("STRIPE_WEBHOOK_SECRET", "hunter2,,"),
            ("STRIPE_CALLS_PER_SECOND", "0"),
        ] {
            let text = mistakes(&[key, (name, wrong)]);
            assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
        }
        assert!(mistakes(&[("STRIPE_API_KEY", "two words hunter2")]).contains("STRIPE_API_KEY"));
    }

    #[test]
    fn what_describes_a_broker_is_read_with_a_broker_alone() {
        assert_eq!(mistakes(&[("STREAM_REPLICAS", "3"), ("STREAM_BYTES_MAX", "1GiB")]), "");
        assert_eq!(mistakes(&[("NATS_URL", "nats://127.0.0.1"), ("STREAM_REPLICAS", "3")]), "");
        assert!(mistakes(&[("NATS_URL", "nats://127.0.0.1"), ("STREAM_REPLICAS", "2")]).contains("STREAM_REPLICAS"));
        for small in ["0", "64", "127KiB"] {
            let text = mistakes(&[("NATS_URL", "nats://127.0.0.1"), ("STREAM_BYTES_MAX", small)]);
            assert!(text.contains("STREAM_BYTES_MAX") && text.contains("128KiB or more"), "{small}: {text}");
        }
    }
}
