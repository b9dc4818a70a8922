//! The settings of tokens, and the secrets that production refuses.

use goldleaves_runtime::settings::{DEFAULT_TOML, Environment, Values};

use crate::{Algorithm, JwtSettings, SecretNeed};

fn jwt(environment: Environment, secret: &str, need: SecretNeed) -> Result<JwtSettings, String> {
    let mut values = Values::load([("JWT_SECRET", secret)], None);
    let jwt = JwtSettings::read(&mut values, Some(environment), need);
    values.finish(jwt).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn secrets_in_production_and_elsewhere() {
    let good = "s3f0c9a1be27d45860c1f2e93a7b6d80";
    let sample = "your-secure-jwt-secret-key-here";
    for need in [SecretNeed::Required, SecretNeed::Generated] {
        assert_eq!(jwt(Environment::Production, good, need).unwrap().secret.unwrap().expose(), good);
        for (secret, why) in [
            ("", "is missing"),
            (sample, "is a sample that everybody knows"),
            ("Your-256-Bit-Secret", "is a sample"),
            ("a-string-secret-at-least-256-bits-long", "is a sample"),
            ("s3f0c9a1be27d45860c1f2e93a7b6d8", "has fewer than 32 bytes"),
            ("0123456789abcdef0123456789abcdef", "repeats itself"),
            ("abcdefghijklmnopqrstuvwxyz987654", "is a run"),
            ("s3f0c9a1be27d45860c1f2e93a7b6d80\n", "ends with a blank or a line break"),
        ] {
            let error = jwt(Environment::Production, secret, need).unwrap_err();
            assert!(error.contains(why), "{secret}: {error}");
        }
        assert!(jwt(Environment::Development, sample, need).is_ok());
        assert!(jwt(Environment::Development, "x", need).is_ok());
        let blank = jwt(Environment::Development, " x", need).unwrap_err();
        assert!(blank.contains("begins or ends with a blank"), "{blank}");
    }
    assert!(jwt(Environment::Development, "", SecretNeed::Required).is_err());
    assert_eq!(jwt(Environment::Development, "", SecretNeed::Generated).unwrap().secret, None);
}

#[test]
fn the_defaults_are_those_that_are_promised() {
    let jwt = jwt(Environment::Development, "", SecretNeed::Generated).unwrap();
    assert_eq!(jwt.algorithm, Algorithm::Hs256);
    assert_eq!(jwt.lifetime.as_secs(), 3_600);
    assert_eq!(jwt.secret, None);
    assert_eq!(jwt.issuer, None);
    assert_eq!(jwt.audience, None);
}

#[test]
fn an_algorithm_that_is_not_supported_is_named() {
    let mut values = Values::load([("JWT_ALGORITHM", "RS256"), ("JWT_SECRET", "x")], None);
    let jwt = JwtSettings::read(&mut values, Some(Environment::Development), SecretNeed::Required);
    let text = values.finish(jwt).unwrap_err().to_string();
    assert!(
        text.contains("JWT_ALGORITHM: \"RS256\" is wrong: is not supported; expected HS256, HS384 or HS512"),
        "{text}"
    );
}

#[test]
fn the_examples_in_the_default_file_are_valid() {
    let example = |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).map(str::to_owned);
    let mut file = "[jwt]\n".to_owned();
    for line in
        DEFAULT_TOML.lines().skip_while(|line| *line != "[jwt]").skip(1).take_while(|line| !line.starts_with('['))
    {
        file += &example(line).unwrap_or_else(|| line.to_owned());
        file.push('\n');
    }
    let file = file.replace("secret = \"\"", "secret = \"s3f0c9a1be27d45860c1f2e93a7b6d80\"");
    let mut values = Values::load([] as [(&str, &str); 0], Some(&file));
    let jwt = JwtSettings::read(&mut values, Some(Environment::Production), SecretNeed::Required);
    assert!(values.finish(jwt).is_ok(), "{file}");
}
