//! Layers, mistakes and the default file, as programs meet them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::files::Pipes;
use crate::telemetry::LogFormat;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn load(environment: Pairs<'_>, file: Option<&str>) -> Values {
    Values::load(environment.iter().copied(), file)
}

fn mistakes(values: Values) -> String {
    values.finish(Some(())).expect_err("there must be mistakes").to_string()
}

/// Returns what one setting says, and in which layer.
fn text_of(values: &mut Values, setting: Setting) -> (Option<String>, Option<String>) {
    let text = values.optional(setting, parse::text).unwrap();
    let reading = values.readings().find(|reading| reading.setting == setting).unwrap();
    (text, reading.layer.clone())
}

#[test]
fn the_environment_wins_over_the_file_over_the_default() {
    let file = "data_dir = \"/file\"\n[log]\nlevel = \"warn\"\n";
    let mut values = load(&[("DATA_DIR", "/environment"), ("LOG_FORMAT", ""), ("UNRELATED", "x")], Some(file));
    for (setting, text, layer) in [
        (table::DATA_DIR, "/environment", "environment"),
        (table::LOG_LEVEL, "warn", "goldleaves.toml"),
        (table::LOG_FORMAT, "text", "default"),
    ] {
        assert_eq!(text_of(&mut values, setting), (Some(text.to_owned()), Some(layer.to_owned())), "{}", setting.name);
    }
    assert_eq!(text_of(&mut values, table::NATS_URL), (None, None));
    assert!(values.is_set(table::DATA_DIR) && values.is_set(table::LOG_LEVEL));
    assert!(!values.is_set(table::LOG_FORMAT) && !values.is_set(table::NATS_URL));
    values.finish(Some(())).unwrap();
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut values = load(&[("LOG_LEVEL", ""), ("DATA_DIR", "  ")], Some("data_dir = \"/file\""));
    assert_eq!(text_of(&mut values, table::DATA_DIR).0.as_deref(), Some("/file"));
    assert_eq!(text_of(&mut values, table::LOG_LEVEL).0.as_deref(), Some("info"));
}

#[test]
fn toml_types_are_read_as_their_text() {
    let file = "debug = true\n[usage]\nrate_cents = 0.125\n[billable]\nroutes = [\"/a\", \"/b\"]\n[jwt]\nexpiration_minutes = 5\n";
    let mut values = load(&[], Some(file));
    assert_eq!(text_of(&mut values, table::USAGE_RATE_CENTS).0.as_deref(), Some("0.125"));
    assert_eq!(text_of(&mut values, table::BILLABLE_ROUTES).0.as_deref(), Some("/a,/b"));
    assert_eq!(values.required(table::DEBUG, parse::boolean), Some(true));
    assert_eq!(values.required(table::JWT_EXPIRATION_MINUTES, parse::whole(1..=9_u32)), Some(5));
    values.finish(Some(())).unwrap();
}

#[test]
fn every_mistake_is_told_at_once_with_what_would_be_right() {
    let file = "[jwt]\nsecrt = \"s3cret-value\"\n[nonsense]\nkey = 1\n";
    let mut values = load(&[("LOG_LEVEL", "loud"), ("SPOOL_BYTES_MAX", "8 GB!")], Some(file));
    let common = Common::read(&mut values);
    values.required(table::JWT_SECRET, parse::secret);
    values.required(table::SPOOL_BYTES_MAX, parse::byte_size);
    values.required(table::GATEWAY_ADDR, parse::socket_address);
    assert!(common.is_none());
    let text = mistakes(values);
    for part in [
        "6 settings are wrong:",
        "goldleaves.toml: unknown key `jwt.secrt`; the nearest known one is `jwt.secret`",
        "goldleaves.toml: unknown key `nonsense.key`",
        "LOG_LEVEL: \"loud\" is wrong: is no level; expected trace, debug, info, warn, error or off",
        "JWT_SECRET: is missing; expected",
        "SPOOL_BYTES_MAX: \"8 GB!\" is wrong",
        "GATEWAY_ADDR: is missing; expected an address and port",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("s3cret-value"), "{text}");
}

#[test]
fn a_setting_that_this_version_does_not_have_is_refused_by_name() {
    let file =
        "[tls]\ncert_file = \"/x\"\n[[rate_limits]]\nname = \"a\"\n[[jwt.issuers]]\nissuer = \"a\"\n[access_log]\n";
    let given = [("TRUSTED_PROXIES", "10.0.0.0/8"), ("JWT_SECRET_PREVIOUS", "hunter2"), ("API_KEYS", " ")];
    let values = load(&given, Some(file));
    assert!(values.warnings().is_empty(), "{:?}", values.warnings());
    let text = mistakes(values);
    for part in [
        "6 settings are wrong:",
        "\n  JWT_SECRET_PREVIOUS: is a setting that this version does not have; expected it to be unset",
        "\n  TRUSTED_PROXIES: is a setting that this version does not have",
        "goldleaves.toml: `tls.cert_file` is a setting that this version does not have; expected the file without it",
        "goldleaves.toml: `rate_limits` is a setting",
        "goldleaves.toml: `jwt.issuers` is a setting",
        "goldleaves.toml: `access_log` is a setting",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn no_secret_is_ever_printed() {
    let secret = "hunter2-hunter2";
    let url = format!("ftp://user:{secret}@host");
    let environment =
        [("JWT_SECRET", secret), ("ENVIRONMENT", "production"), ("UPSTREAM_URL", &url), ("DATABASE_URL", &url)];
    let mut values = Values::load(environment, None);
    Common::read(&mut values).unwrap();
    let jwt = values.optional(table::JWT_SECRET, parse::secret);
    values.mistake(table::JWT_SECRET, "has fewer than 32 bytes");
    values.optional(table::UPSTREAM_URL, |text| Err::<(), _>(text.to_owned()));
    values.optional(table::DATABASE_URL, |text| Err::<(), _>(text.to_owned()));
    let printed = format!("{values:?} {jwt:?} {:?}", values.readings().collect::<Vec<_>>());
    assert!(!printed.contains(secret), "{printed}");
    let text = mistakes(values);
    assert!(text.contains("UPSTREAM_URL") && text.contains("DATABASE_URL") && text.contains("JWT_SECRET"), "{text}");
    assert!(!text.contains(secret), "{text}");
    let broken = format!("[jwt]\nsecret = \"{secret}\" and more\n");
    let text = mistakes(load(&[], Some(&broken)));
    assert!(text.contains("goldleaves.toml: is not TOML in line 2, column ") && !text.contains(secret), "{text}");
    let wrong_place = format!("jwt = \"{secret}\"\n");
    assert!(!mistakes(load(&[], Some(&wrong_place))).contains(secret));
}

#[test]
fn a_file_that_is_no_toml_is_one_mistake() {
    for (text, at) in [
        ("[jwt]\nsecret = \"a secret of the tests, long enough for anyone\"\n[limits\nx = 1\n", "in line 3, column 8"),
        ("\u{e9} = 1\n", "in line 1, column 1"),
        ("x = \"\u{e9}\" y\n", "in line 1, column 9"),
        ("[gateway]\naddr = 127.0.0.1:80\n", "in line 2, column "),
        ("a = 1\na = 2\n", "in line 2, column 1"),
    ] {
        let mut values = load(&[("RATE_LIMIT_PER_SECOND", "many")], Some(text));
        // What the file may say, or that and the environment together.
        values.required(table::JWT_SECRET, parse::secret);
        values.required(table::UPSTREAM_URL, parse::text);
        values.mistake(table::RATE_LIMIT_PER_SECOND, "is no number");
        let said = mistakes(values);
        assert!(said.contains(&format!("goldleaves.toml: is not TOML {at}")), "{said}");
        assert!(!said.contains("JWT_SECRET") && !said.contains("missing") && !said.contains("RATE_LIMIT"), "{said}");
    }
}

#[test]
fn a_setting_that_does_nothing_yet_is_refused() {
    let mut values = load(&[("STRIPE_API_KEY", "sk_live_x")], Some("[stripe]\napi_base = \"http://c\""));
    for setting in [table::STRIPE_API_KEY, table::STRIPE_API_BASE] {
        values.refuse(setting, "usage is not pushed to it");
    }
    let text = mistakes(values);
    assert!(text.contains("2 settings") && text.contains("STRIPE_API_KEY: does nothing yet"), "{text}");
    assert!(text.contains("STRIPE_API_BASE") && !text.contains("sk_live_x"), "{text}");
}

#[test]
fn what_only_other_programs_read_is_ignored() {
    let mut values = load(&[("SPOOL_BYTES_MAX", "nonsense"), ("STRIPE_API_KEY", "x")], None);
    assert!(Common::read(&mut values).is_some());
    values.finish(Some(())).unwrap();
}

#[test]
fn values_that_are_not_unicode_or_no_value() {
    let bytes = OsString::from_vec(vec![0xff]);
    let mut values = Values::load([("DATA_DIR", bytes.clone()), ("UNKNOWN", bytes)], Some("[log]\nlevel = [[1]]\n"));
    assert_eq!(values.required(table::DATA_DIR, parse::path), None);
    assert_eq!(values.required(table::LOG_LEVEL, parse::text), None);
    let text = mistakes(values);
    assert!(
        text.contains("DATA_DIR: is not UTF-8") && text.contains("LOG_LEVEL: is a table or a list of lists"),
        "{text}"
    );
}

#[test]
fn unknown_keys_in_any_shape() {
    for (file, key) in [
        ("jwt_secret = 1", "jwt_secret"),
        ("[log]\nlevel.deep = 1", "log.level.deep"),
        ("[limits.more]\nx = 1", "limits.more.x"),
        ("log = 5", "log"),
        ("[[spool]]\nbytes_max = 1", "spool"),
        ("[empty]", "empty"),
    ] {
        let text = mistakes(load(&[], Some(file)));
        assert!(text.contains(&format!("unknown key `{key}`")), "{file}: {text}");
    }
}

#[test]
fn a_secret_may_have_a_file_of_its_own() {
    let folder = std::env::temp_dir().join(format!("goldleaves-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).unwrap();
        folder.join(name).display().to_string()
    };
    let good = path("good", b"two lines\nof a secret \n\n");
    for setting in table::ALL.iter().filter(|setting| setting.file().is_some()) {
        let (name, key) = setting.file().unwrap();
        assert_eq!(name, format!("{}_FILE", setting.name));
        let (section, entry) = key.split_once('.').unwrap();
        let file = format!("[{section}]\n{entry} = {good:?}\n");
        for mut values in [load(&[(name, &good)], None), load(&[], Some(&file))] {
            assert!(values.is_set(*setting), "{name}");
            let secret = values.optional(*setting, parse::secret).unwrap().unwrap();
            assert_eq!(secret.expose(), "two lines\nof a secret \n", "{name}: only the last newline goes");
            let reading = values.readings().next().unwrap();
            assert_eq!(reading.shown.as_deref(), Some("set"));
            assert!(reading.layer.as_ref().unwrap().starts_with(name), "{reading:?}");
            values.finish(Some(())).unwrap();
        }
        let mut both = load(&[(name, &good), (setting.name, "hunter2")], None);
        assert_eq!(both.optional(*setting, parse::secret), None);
        let text = mistakes(both);
        assert!(
            text.contains(&format!("{name}: is set, and so is {}", setting.name)) && !text.contains("hunter2"),
            "{text}"
        );
    }
    let absent = folder.join("absent").display().to_string();
    for (file, why) in [
        (absent, "can't be read: No such file"),
        (path("empty", b"\n"), "holds nothing"),
        (path("bytes", &[0xff]), "does not hold UTF-8"),
        (path("large", &vec![b'x'; 1 << 21]), "holds more than 1 MiB"),
        (folder.display().to_string(), "can't be read: it is a folder and no regular file"),
    ] {
        let mut values = load(&[("JWT_SECRET_FILE", &file)], None);
        assert_eq!(values.optional(table::JWT_SECRET, parse::secret), None);
        let text = mistakes(values);
        assert!(text.contains("JWT_SECRET_FILE: ") && text.contains(why), "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_warned_about() {
    let values =
        load(&[("JWT_SECRT", "hunter2"), ("PATH", "/bin"), ("CONFIG_FILE", "/x"), ("NATS_URL_FILE", "")], None);
    let warning = "the variable JWT_SECRT is no setting and changes nothing; the nearest known one is JWT_SECRET";
    assert_eq!(values.warnings(), [warning]);
    let common = Common::read(&mut load(&[("LOG_LEVL", "debug")], None)).unwrap();
    assert_eq!(common.warnings.len(), 1);
}

#[test]
fn what_an_unset_setting_stands_for_is_shown() {
    let mut values = load(&[("BILLING_ADDR", "127.0.0.1:1")], None);
    let default: std::net::SocketAddr = "127.0.0.1:8080".parse().unwrap();
    values.or_default(table::GATEWAY_ADDR, parse::socket_address, default);
    values.or_default(table::BILLING_ADDR, parse::socket_address, default);
    let shown: Vec<_> = values.readings().map(|it| (it.shown.as_deref(), it.layer.as_deref())).collect();
    assert_eq!(shown, [(Some("127.0.0.1:1"), Some("environment")), (Some("127.0.0.1:8080"), Some("default")),]);
}

#[test]
fn debug_and_levels() {
    for (environment, level) in [
        (&[][..], LevelFilter::INFO),
        (&[("LOG_LEVEL", "Debug")], LevelFilter::DEBUG),
        (&[("LOG_LEVEL", "WARNING")], LevelFilter::WARN),
        (&[("LOG_LEVEL", "ERROR"), ("DEBUG", "true")], LevelFilter::DEBUG),
        (&[("LOG_LEVEL", "trace"), ("DEBUG", "1")], LevelFilter::TRACE),
        (&[("LOG_LEVEL", "off")], LevelFilter::OFF),
    ] {
        let common = Common::read(&mut load(environment, None)).unwrap();
        assert_eq!(common.logs.level, level, "{environment:?}");
    }
}

#[test]
fn documents_are_shown_except_in_production() {
    for (environment, shown) in [
        (&[][..], true),
        (&[("ENVIRONMENT", "PRODUCTION")], false),
        (&[("ENVIRONMENT", "staging")], true),
        (&[("ENVIRONMENT", "production"), ("ENABLE_DOCS", "true")], true),
        (&[("ENABLE_DOCS", "false")], false),
    ] {
        let mut values = load(environment, None);
        let common = Common::read(&mut values).unwrap();
        assert_eq!(Common::read_enable_docs(Some(&common), &mut values), Some(shown), "{environment:?}");
    }
    let mut values = load(&[("ENVIRONMENT", "prod")], None);
    assert!(Common::read(&mut values).is_none());
    assert!(mistakes(values).contains("ENVIRONMENT"), "a misspelt production must not pass as development");
}

#[test]
fn the_default_file_parses_and_names_every_setting() {
    load(&[], Some(DEFAULT_TOML)).finish(Some(())).unwrap();
    let mut section = String::new();
    let mut keys: Vec<String> = Vec::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            keys.push(format!("{section}{key}"));
        }
    }
    for setting in table::ALL {
        assert!(keys.iter().any(|key| key == setting.key), "{} is missing", setting.key);
        assert!(
            DEFAULT_TOML.contains(&format!("# {}", setting.name))
                || DEFAULT_TOML.contains(&format!(", {}", setting.name))
                || DEFAULT_TOML.contains(&format!(". {}", setting.name)),
            "{} is not explained",
            setting.name
        );
    }
    for key in keys.iter().filter(|key| !key.contains(' ')) {
        assert!(table::ALL.iter().any(|setting| setting.key == key), "{key} is no setting");
    }
}

/// The commented-out examples are right as well. What the programs make of them is tested where the programs are.
#[test]
fn the_examples_in_the_default_file_are_valid() {
    let uncommented: Vec<&str> = DEFAULT_TOML
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .collect();
    let file = uncommented.join("\n").replace("secret = \"\"", "secret = \"s3f0c9a1be27d45860c1f2e93a7b6d80\"");
    let mut values = load(&[], Some(&file));
    let common = Common::read(&mut values).unwrap();
    assert_eq!(Common::read_enable_docs(Some(&common), &mut values), Some(true));
    for setting in [table::GATEWAY_ADDR, table::BILLING_ADDR, table::OPS_ADDR] {
        assert!(values.required(setting, parse::socket_address).is_some(), "{}", setting.name);
    }
    values.finish(Some(())).unwrap();
}

#[test]
fn the_defaults_are_those_that_are_promised() {
    let mut values = load(&[], None);
    let common = Common::read(&mut values).unwrap();
    assert_eq!(common.environment, Environment::Development);
    assert_eq!(common.logs.level, LevelFilter::INFO);
    assert_eq!(common.logs.format, LogFormat::Text);
    assert_eq!(common.shutdown_grace, Duration::from_secs(30));
    let routes = "/api/v1/documents,/api/v1/cases,/api/v1/clients,/api/v1/forms,/api/v1/ai,/api/v1/search";
    for (setting, text) in [
        (table::DATA_DIR, "./data"),
        (table::BILLABLE_ROUTES, routes),
        (table::BILLABLE_STATUSES, "2xx,3xx"),
        (table::BILLING_URL, "http://127.0.0.1:8081"),
        (table::METER_DURABILITY, "available"),
        (table::EVENT_CLIENT_INFO, "true"),
        (table::STREAM_REPLICAS, "1"),
    ] {
        assert_eq!(text_of(&mut values, setting).0.as_deref(), Some(text), "{}", setting.name);
    }
    assert_eq!(values.required(table::SPOOL_BYTES_MAX, parse::byte_size), Some(8 << 30));
    assert_eq!(values.required(table::STREAM_BYTES_MAX, parse::byte_size), Some(64 << 30));
    assert_eq!(values.required(table::SPOOL_RETAIN_HOURS, parse::hours), Some(Duration::from_secs(86_400)));
    for unset in [table::DATABASE_URL, table::JWT_SECRET, table::UPSTREAM_URL, table::NATS_URL, table::ALLOWED_ORIGINS]
    {
        assert_eq!(text_of(&mut values, unset).0, None, "{}", unset.name);
    }
    values.finish(Some(())).unwrap();
}

#[test]
fn the_file_is_read_from_a_folder_or_by_its_name() {
    let directory = std::env::temp_dir().join(format!("goldleaves-settings-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    assert!(File::in_folder(&directory).unwrap().is_none());
    let path = directory.join(FILE_NAME);
    let error = File::named(CONFIG_FILE, &path, Pipes::Refused).unwrap_err().to_string();
    assert!(
        error.contains("CONFIG_FILE: ") && error.contains("goldleaves.toml\" cannot be read: No such file"),
        "{error}"
    );
    std::fs::write(&path, "debug = true\n").unwrap();
    assert_eq!(File::in_folder(&directory).unwrap().unwrap().text, "debug = true\n");
    let named = File::named(CONFIG_FILE, &path, Pipes::Refused).unwrap();
    let mut values = Values::load_file([("LOG_LEVEL", "warn")], Some(named));
    assert_eq!(text_of(&mut values, table::DEBUG).1.unwrap(), path.display().to_string(), "which file it was is said");
    std::fs::write(&path, [0xff]).unwrap();
    assert!(File::in_folder(&directory).unwrap_err().to_string().contains("goldleaves.toml: cannot be read"));
    std::fs::remove_dir_all(&directory).unwrap();
}
