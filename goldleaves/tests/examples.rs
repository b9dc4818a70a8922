//! The examples in the default settings are accepted by the programs that read them, not only by the table.

#![expect(clippy::panic, reason = "a test stops at the first surprise")]

use goldleaves_runtime::settings::{DEFAULT_TOML, Values};

/// Settings whose examples name files that only an operator has.
const FILES: [&str; 3] = ["credentials_file", "ca_file", "exporter_otlp_certificate"];

/// The default file with every commented-out setting in it but those that name files, and a secret.
fn example() -> String {
    let is_setting =
        |rest: &&str| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ') && !FILES.contains(&key));
    let uncommented = |line: &'static str| line.strip_prefix("# ").filter(is_setting).unwrap_or(line);
    let file: Vec<&str> = DEFAULT_TOML.lines().map(uncommented).collect();
    let file = file.join("\n").replace("secret = \"\"", "secret = \"s3f0c9a1be27d45860c1f2e93a7b6d80\"");
    file.replace("api_key = \"\"", "api_key = \"rk_test_4f1c9a02be27d458\"")
}

fn accepted<C>(program: &str, read: impl FnOnce(&mut Values) -> Option<C>) {
    let mut values = Values::load([] as [(&str, &str); 0], Some(&example()));
    let config = read(&mut values);
    if let Err(mistakes) = values.finish(config) {
        panic!("{program}: {mistakes}");
    }
}

#[test]
fn each_program_accepts_the_examples() {
    accepted("gateway", goldleaves_gateway::program::Config::read);
    accepted("meter-worker", goldleaves_meter_worker::program::Config::read);
    accepted("billing-api", goldleaves_billing_api::program::Config::read);
}
