//! `compose.yaml`: each program gets what it reads and nothing else, and nothing is reachable from outside the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use serde_yaml_ng::Value;

use crate::{file, text};

/// The services that run a program of ours, each by the program's name.
const PROGRAMS: [&str; 4] = ["migrate", "gateway", "meter-worker", "billing-api"];
/// The secrets that `deploy/make-env` writes.
const SECRETS: [&str; 7] = [
    "JWT_SECRET",
    "POSTGRES_PASSWORD",
    "POSTGRES_WORKER_PASSWORD",
    "POSTGRES_BILLING_PASSWORD",
    "NATS_GATEWAY_PASSWORD",
    "NATS_WORKER_PASSWORD",
    "NATS_ADMIN_PASSWORD",
];

fn compose() -> Value {
    let mut compose: Value = serde_yaml_ng::from_str(&text("compose.yaml")).unwrap();
    compose.apply_merge().unwrap();
    compose
}

fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    let services = compose["services"].as_mapping().unwrap();
    services.iter().map(|(name, service)| (name.as_str().unwrap(), service)).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

/// A service's environment as Compose would fill it in; a secret is filled in as its own name.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_mapping().unwrap();
    let filled = |value: &Value| fill_in(value.as_str().map_or_else(|| panic!("{value:?}"), str::to_owned));
    variables.iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), filled(value))).collect()
}

fn fill_in(mut text: String) -> String {
    while let Some(start) = text.find("${") {
        let end = start + text[start..].find('}').unwrap();
        let inside = &text[start + 2..end];
        let value = match inside.split_once(":-") {
            Some((_, default)) => default.to_owned(),
            None => {
                let (name, message) = inside.split_once(":?").unwrap_or_else(|| panic!("{inside} has no default"));
                assert!(SECRETS.contains(&name), "{name} is no secret that deploy/make-env makes");
                assert!(message.contains("deploy/make-env"), "{name}: {message}");
                format!("{name}_0123456789_0123456789")
            }
        };
        text.replace_range(start..=end, &value);
    }
    text
}

/// Runs `check-config`; returns whether it passed, and what it says the program reads and from where.
fn check_config(program: &str, environment: &BTreeMap<String, String>) -> (bool, String) {
    let scratch = Scratch::new("compose").unwrap();
    let launch = Launch::new("goldleaves", scratch.path()).argument("check-config").argument("--program");
    let settings = environment.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let output = launch.argument(program).settings(settings).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_program_reads_every_variable_it_is_given_and_misses_none() {
    let compose = compose();
    for program in PROGRAMS {
        let service = services(&compose)[program];
        assert_eq!(texts(&service["command"]), [program]);
        let environment = environment(service);
        let (right, said) = check_config(program, &environment);
        assert!(right, "{program}: {said}");
        for name in environment.keys() {
            let read = said.lines().any(|line| line.starts_with(&format!("{name} = ")));
            assert!(read, "{program} is given {name}, which it does not read:\n{said}");
        }
    }
}

/// Every setting that operators can set can be set in `.env`, so that nobody has to change compose.yaml for it.
#[test]
fn every_setting_that_a_program_reads_reaches_it() {
    let compose = compose();
    let services = services(&compose);
    let mut passed = BTreeSet::new();
    for program in PROGRAMS {
        let environment = environment(services[program]);
        let (_, said) = check_config(program, &environment);
        // The image says where its data is.
        let read = said.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned());
        let missing: Vec<String> = read.filter(|name| name != "DATA_DIR" && !environment.contains_key(name)).collect();
        assert!(missing.is_empty(), "{program} reads {missing:?}, which compose.yaml does not pass to it");
        passed.extend(environment.into_keys());
    }
    let settings = text("docs/SETTINGS.md");
    let rows = settings.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let lacking: Vec<&str> = rows.filter(|name| *name != "DATA_DIR" && !passed.contains(*name)).collect();
    assert!(lacking.is_empty(), "docs/SETTINGS.md lists {lacking:?}, which no service of compose.yaml is given");
}

#[test]
fn in_production_the_same_variables_are_right_and_a_missing_secret_is_not() {
    let compose = compose();
    let mut environment = environment(services(&compose)["gateway"]);
    environment.insert("ENVIRONMENT".to_owned(), "production".to_owned());
    assert!(check_config("gateway", &environment).0);
    environment.remove("JWT_SECRET");
    let (right, said) = check_config("gateway", &environment);
    assert!(!right && said.contains("JWT_SECRET"), "{said}");
}

#[test]
fn each_program_has_its_own_credentials_and_no_others() {
    let compose = compose();
    let services = services(&compose);
    let has = |service: &str, words: &[&str]| {
        let values = environment(services[service]).into_values().collect::<Vec<_>>().join(" ");
        words.iter().filter(|word| values.contains(*word)).count() == words.len()
            && SECRETS.iter().filter(|secret| values.contains(*secret)).count() == words.len()
    };
    assert!(has("gateway", &["JWT_SECRET", "NATS_GATEWAY_PASSWORD"]));
    assert!(has("meter-worker", &["NATS_WORKER_PASSWORD", "POSTGRES_WORKER_PASSWORD"]));
    assert!(has("billing-api", &["JWT_SECRET", "POSTGRES_BILLING_PASSWORD"]));
    assert!(has("migrate", &["NATS_ADMIN_PASSWORD", "POSTGRES_PASSWORD"]));
    // Not even by network: whoever shares one reaches every port of the other.
    let reached = |from: &str, to: &str| {
        let networks = texts(&services[from]["networks"]);
        texts(&services[to]["networks"]).into_iter().any(|network| networks.contains(&network))
    };
    let neighbours = |of: &str| services.keys().copied().filter(|to| *to != of && reached(of, to)).collect::<Vec<_>>();
    assert_eq!(neighbours("upstream"), ["gateway"]);
    assert_eq!(neighbours("nats"), ["gateway", "meter-worker", "migrate"]);
    assert_eq!(neighbours("postgres"), ["billing-api", "meter-worker", "migrate", "roles"]);
}

#[test]
fn only_this_machine_reaches_a_published_port() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn nothing_gains_privileges_and_ours_have_none() {
    let compose = compose();
    for (name, service) in services(&compose) {
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        let ours = PROGRAMS.contains(&name);
        assert!(!ours || service["read_only"] == true && texts(&service["cap_drop"]) == ["ALL"], "{name}");
    }
    // A number can be seen not to be root's without the image's own list of users.
    let dockerfile = text("deploy/Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    assert!(dockerfile.contains(&format!("useradd --uid {user} --gid {group}")));
}

#[test]
fn what_stays_is_restarted_watched_and_given_time_to_stop() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let once = ["migrate", "roles"].contains(&name);
        let restart = service["restart"].as_str().unwrap();
        assert_eq!(restart, if once { "no" } else { "unless-stopped" }, "{name}");
        let stays_of_ours = PROGRAMS.contains(&name) && !once;
        let grace = service["stop_grace_period"].as_str().map(|grace| grace.trim_end_matches('s').parse::<u32>());
        // SHUTDOWN_GRACE_SECS and what the relay has after it.
        assert!(!stays_of_ours || grace.is_some_and(|grace| grace.unwrap() > 35), "{name}");
        // Ours have the image's own health check.
        assert!(once || stays_of_ours || service["healthcheck"]["test"].is_sequence(), "{name}");
    }
}

#[test]
fn the_spool_and_both_stores_are_on_volumes_and_every_mounted_file_is_here() {
    let compose = compose();
    let services = services(&compose);
    let named: BTreeSet<&str> = compose["volumes"].as_mapping().unwrap().keys().filter_map(Value::as_str).collect();
    let mut used = BTreeSet::new();
    for (name, service) in &services {
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(path) => assert!(file(path).is_file() && volume.ends_with(":ro"), "{name}: {volume}"),
                None => assert!(used.insert(source), "{source} is mounted twice"),
            }
        }
    }
    assert_eq!(used, named);
    let dockerfile = text("deploy/Dockerfile");
    let data_dir = dockerfile.split("DATA_DIR=").nth(1).unwrap().split_whitespace().next().unwrap();
    assert_eq!(texts(&services["gateway"]["volumes"]), [format!("spool:{data_dir}")]);
}

#[test]
fn every_program_is_built_into_the_image() {
    let dockerfile = text("deploy/Dockerfile");
    for program in PROGRAMS.into_iter().chain(["goldleaves"]) {
        assert!(dockerfile.contains(&format!("target/dist/{program}")), "{program}");
        assert!(goldleaves_testkit::program::built(program).is_ok(), "{program} is no program of this workspace");
    }
    for source in ["Cargo.toml", "Cargo.lock", "shared", "deploy/ready"] {
        assert!(text(".dockerignore").lines().any(|line| line == format!("!{source}")), "{source} is not sent");
    }
}

/// Compose builds for each service that says how, all at once; of two that export the same name, newer Docker refuses one.
#[test]
fn one_service_builds_the_image_of_all() {
    let compose = compose();
    let services = services(&compose);
    let building: Vec<&str> = services.iter().filter(|(_, it)| !it["build"].is_null()).map(|(name, _)| *name).collect();
    assert_eq!(building, ["migrate"]);
    for program in PROGRAMS {
        assert_eq!(services[program]["image"], services["migrate"]["image"], "{program}");
        assert_eq!(services[program]["pull_policy"], "never", "{program}: it is in no registry");
    }
}

#[test]
fn what_the_image_runs_by_itself_is_reached_from_outside_its_container() {
    let dockerfile = text("deploy/Dockerfile");
    let variables = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let pair = |it: &str| it.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (right, said) = check_config("goldleaves", &variables.split_whitespace().filter_map(pair).collect());
    assert!(right, "{said}");
    for line in ["GATEWAY_ADDR = 0.0.0.0:8080  (environment)", "OPS_ADDR = 0.0.0.0:9090  (environment)"] {
        assert!(said.lines().any(|it| it == line), "no {line} in\n{said}");
    }
}

#[test]
fn secrets_are_made_once_and_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = Scratch::new("make-env").unwrap();
    std::fs::create_dir(scratch.join("deploy")).unwrap();
    assert_eq!(std::fs::metadata(file("deploy/make-env")).unwrap().permissions().mode() & 0o111, 0o111);
    std::fs::copy(file("deploy/make-env"), scratch.join("deploy/make-env")).unwrap();
    // By its interpreter: a file that was just written can't be executed while another test's child, forked meanwhile,
    // still has it open.
    let run = || Command::new("sh").arg(scratch.join("deploy/make-env")).output().unwrap();
    assert!(run().status.success());
    let env = std::fs::read_to_string(scratch.join(".env")).unwrap();
    let values: BTreeMap<&str, &str> = env.lines().map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!(values.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(SECRETS));
    assert_eq!(values.values().collect::<BTreeSet<_>>().len(), SECRETS.len(), "each is another");
    assert!(values.values().all(|value| value.len() >= 32 && value.starts_with('s')));
    assert_eq!(std::fs::metadata(scratch.join(".env")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run().status.success(), "a second run must keep what is there");
    assert_eq!(std::fs::read_to_string(scratch.join(".env")).unwrap(), env);
}

/// Compose itself is not among the tools that the tests install: where `docker compose` is missing, the structure above
/// is all that is checked.
#[test]
fn docker_compose_takes_the_file_where_it_is_installed() {
    let has_compose = Command::new("docker").args(["compose", "version"]).output().is_ok_and(|it| it.status.success());
    if !has_compose {
        eprintln!("docker compose is not installed: compose.yaml is checked by its structure only");
        return;
    }
    let config = |secrets: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["compose", "--env-file", "/dev/null", "-f"]).arg(file("compose.yaml")).args(["config", "-q"]);
        command.envs(secrets.iter().map(|name| (*name, "s0123456789abcdef0123456789abcdef"))).output().unwrap()
    };
    let whole = config(&SECRETS);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let lacking = config(&SECRETS[1..]);
    assert!(!lacking.status.success() && String::from_utf8_lossy(&lacking.stderr).contains("make-env"));
}
