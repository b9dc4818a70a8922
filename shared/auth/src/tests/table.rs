//! The table of tokens and verdicts.

use super::*;

/// `user/tenant/orgs/roles`, or the error's text.
fn verdict(token: &str) -> String {
    match verifier().verify_token(token) {
        Err(error) => error.to_string(),
        Ok(principal) => {
            let orgs: Vec<&str> = principal.orgs.iter().map(|org| org.as_str()).collect();
            let tenant = principal.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
            format!("{}/{tenant}/{}/{:?}", principal.user, orgs.join(","), principal.roles)
        }
    }
}

/// Claims beside a good `sub` and `exp`.
fn with(claims: &str) -> String {
    verdict(&token(&format!(r#"{{"sub":"u","exp":1800000060,{claims}}}"#)))
}

fn header(header: &str) -> String {
    verdict(&signed(Algorithm::Hs256, header, r#"{"sub":"u","exp":1800000060}"#))
}

const GOOD: &str = "u/-//[]";
const BAD_HEADER: &str = "the token's header asks for something that is not supported";
const BAD_ALGORITHM: &str = "the token's algorithm is not accepted";
const MALFORMED: &str = "the token is not a signed JWT";
const EXPIRED: &str = "the token has expired";
const EARLY: &str = "the token is not valid yet";

fn wrong_type(claim: &str) -> String {
    format!("the token's claim `{claim}` has the wrong type")
}

fn no_time(claim: &str) -> String {
    format!("the token's claim `{claim}` is no time: a number of seconds up to 2^53 is expected")
}

fn wrong_name(claim: &str) -> String {
    format!(
        "the token's claim `{claim}` must have 1 to 255 characters, no control characters and no blanks at either end"
    )
}

#[test]
fn times() {
    for (claims, wanted) in [
        (r#"{"sub":"u","exp":1800000060}"#, GOOD.to_owned()),
        (r#"{"sub":"u","exp":1800000000.001}"#, GOOD.to_owned()),
        (r#"{"sub":"u","exp":9007199254740991}"#, GOOD.to_owned()),
        (r#"{"sub":"u","exp":9007199254740992}"#, no_time("exp")),
        (r#"{"sub":"u","exp":18446744073709551615}"#, no_time("exp")),
        (r#"{"sub":"u","exp":1e30}"#, no_time("exp")),
        (r#"{"sub":"u","exp":1e300}"#, no_time("exp")),
        (r#"{"sub":"u","exp":1800000000}"#, EXPIRED.to_owned()),
        (r#"{"sub":"u","exp":1799999999}"#, EXPIRED.to_owned()),
        (r#"{"sub":"u","exp":1799999999.999}"#, EXPIRED.to_owned()),
        (r#"{"sub":"u","exp":0}"#, EXPIRED.to_owned()),
        (r#"{"sub":"u","exp":-1}"#, EXPIRED.to_owned()),
        (r#"{"sub":"u","exp":-1e300}"#, no_time("exp")),
        (r#"{"sub":"u","exp":1e999}"#, MALFORMED.to_owned()),
        (r#"{"sub":"u"}"#, "the token lacks the claim `exp`".to_owned()),
        (r#"{"sub":"u","exp":null}"#, "the token lacks the claim `exp`".to_owned()),
        (r#"{"sub":"u","exp":"1800000060"}"#, wrong_type("exp")),
        (r#"{"sub":"u","exp":true}"#, wrong_type("exp")),
        (r#"{"sub":"u","exp":[1800000060]}"#, wrong_type("exp")),
        (r#"{"sub":"u","exp":{}}"#, wrong_type("exp")),
    ] {
        assert_eq!(verdict(&token(claims)), wanted, "{claims}");
    }
    for (claims, wanted) in [
        (r#""nbf":1800000000"#, GOOD.to_owned()),
        (r#""nbf":0"#, GOOD.to_owned()),
        (r#""nbf":null"#, GOOD.to_owned()),
        (r#""nbf":1800000001"#, EARLY.to_owned()),
        (r#""nbf":1800000000.5"#, EARLY.to_owned()),
        (r#""nbf":1e30"#, no_time("nbf")),
        (r#""nbf":-1e30"#, no_time("nbf")),
        (r#""nbf":"1""#, wrong_type("nbf")),
        (r#""nbf":false"#, wrong_type("nbf")),
        (r#""iat":"whenever""#, GOOD.to_owned()),
        (r#""iat":1900000000"#, GOOD.to_owned()),
    ] {
        assert_eq!(with(claims), wanted, "{claims}");
    }
}

#[test]
fn users() {
    let long = "ü".repeat(255);
    let too_long = "x".repeat(256);
    for (sub, wanted) in [
        (r#""ann""#.to_owned(), "ann/-//[]".to_owned()),
        (r#""a b / ü~""#.to_owned(), "a b / ü~/-//[]".to_owned()),
        (format!(r#""{long}""#), format!("{long}/-//[]")),
        (format!(r#""{too_long}""#), wrong_name("sub")),
        (r#""""#.to_owned(), wrong_name("sub")),
        (r#""a\u0000b""#.to_owned(), wrong_name("sub")),
        (r#""a\nb""#.to_owned(), wrong_name("sub")),
        (r#""a\u007f""#.to_owned(), wrong_name("sub")),
        (r#""a\u0085""#.to_owned(), wrong_name("sub")),
        (r#""\ud800""#.to_owned(), MALFORMED.to_owned()),
        ("5".to_owned(), wrong_type("sub")),
        ("true".to_owned(), wrong_type("sub")),
        (r#"["u"]"#.to_owned(), wrong_type("sub")),
        ("null".to_owned(), "the token lacks the claim `sub`".to_owned()),
    ] {
        assert_eq!(verdict(&token(&format!(r#"{{"exp":1800000060,"sub":{sub}}}"#))), wanted, "{sub}");
    }
    assert_eq!(verdict(&token(r#"{"exp":1800000060}"#)), "the token lacks the claim `sub`");
}

#[test]
fn tenants() {
    for (claims, wanted) in [
        (r#""tenant_id":"a""#, "u/a//[]".to_owned()),
        (r#""organization_id":"b""#, "u/b//[]".to_owned()),
        (r#""org_id":"c""#, "u/c//[]".to_owned()),
        (r#""org_id":"c","organization_id":"b","tenant_id":"a""#, "u/a//[]".to_owned()),
        (r#""org_id":"c","organization_id":"b""#, "u/b//[]".to_owned()),
        (r#""tenant_id":null,"org_id":"c""#, "u/c//[]".to_owned()),
        (r#""orgs":["x"]"#, "u/x/x/[]".to_owned()),
        (r#""orgs":["x","x"]"#, "u/x/x/[]".to_owned()),
        (r#""orgs":["x","y"]"#, "u/-/x,y/[]".to_owned()),
        (r#""orgs":["x","y"],"org_id":"z""#, "u/z/x,y/[]".to_owned()),
        (r#""orgs":[]"#, GOOD.to_owned()),
        (r#""orgs":null"#, GOOD.to_owned()),
        (r#""orgs":"x""#, wrong_type("orgs")),
        (r#""orgs":{"x":1}"#, wrong_type("orgs")),
        (r#""orgs":["x",5]"#, wrong_type("orgs")),
        (r#""orgs":["x",null]"#, wrong_type("orgs")),
        (r#""orgs":[""]"#, wrong_name("orgs")),
        (r#""orgs":["a\tb"],"tenant_id":"a""#, wrong_name("orgs")),
        (r#""tenant_id":"""#, wrong_name("tenant_id")),
        (r#""tenant_id":"a\u0000""#, wrong_name("tenant_id")),
        (r#""organization_id":"\n""#, wrong_name("organization_id")),
        (r#""tenant_id":7"#, wrong_type("tenant_id")),
        (r#""tenant_id":true"#, wrong_type("tenant_id")),
        (r#""tenant_id":["a"]"#, wrong_type("tenant_id")),
        (r#""tenant_id":"a","org_id":7"#, wrong_type("org_id")),
        (r#""tenant_id":"a","tenant_id":"b""#, MALFORMED.to_owned()),
        (r#""tenant_id":"a","tenant\u005fid":"b""#, MALFORMED.to_owned()),
        (r#""x":{"a":1,"a":2}"#, MALFORMED.to_owned()),
    ] {
        assert_eq!(with(claims), wanted, "{claims}");
    }
    let too_long = "x".repeat(256);
    assert_eq!(with(&format!(r#""tenant_id":"{too_long}""#)), wrong_name("tenant_id"));
}

#[test]
fn roles() {
    for (claims, wanted) in [
        (r#""roles":["admin"]"#, "u/-//[Admin]".to_owned()),
        (r#""roles":["billing:read","billing:write","cook"]"#, "u/-//[BillingRead, BillingWrite]".to_owned()),
        (r#""roles":["Admin","ADMIN"," admin"]"#, GOOD.to_owned()),
        (r#""roles":[]"#, GOOD.to_owned()),
        (r#""roles":"admin""#, GOOD.to_owned()),
        (r#""roles":["admin",1]"#, "u/-//[Admin]".to_owned()),
        (r#""role":"admin","scope":"admin""#, GOOD.to_owned()),
        (r#""is_admin":true"#, "u/-//[Admin]".to_owned()),
        (r#""is_admin":true,"roles":["admin"]"#, "u/-//[Admin]".to_owned()),
        (r#""is_admin":false"#, GOOD.to_owned()),
        (r#""is_admin":null"#, GOOD.to_owned()),
        (r#""is_admin":"true""#, GOOD.to_owned()),
        (r#""is_admin":1"#, GOOD.to_owned()),
        (r#""is_admin":[true]"#, GOOD.to_owned()),
        (r#""aud":"someone","iss":"somewhere""#, GOOD.to_owned()),
        (r#""aud":5,"iss":5"#, GOOD.to_owned()),
    ] {
        assert_eq!(with(claims), wanted, "{claims}");
    }
}

#[test]
fn token_headers() {
    for (text, wanted) in [
        (r#"{"alg":"HS256"}"#, GOOD),
        (r#"{"alg":"HS256","typ":"at+jwt","kid":"7","cty":"x"}"#, GOOD),
        (r#"{"alg":"HS256","b64":true}"#, GOOD),
        (r#"{"alg":"HS256","b64":false}"#, BAD_HEADER),
        (r#"{"alg":"HS256","b64":"false"}"#, BAD_HEADER),
        (r#"{"alg":"HS256","crit":["exp"]}"#, BAD_HEADER),
        (r#"{"alg":"HS256","crit":[]}"#, BAD_HEADER),
        (r#"{"alg":"HS256","crit":null}"#, BAD_HEADER),
        (r#"{"alg":"HS256","zip":"DEF"}"#, BAD_HEADER),
        (r#"{"alg":"HS256","enc":"A128GCM"}"#, BAD_HEADER),
        (r#"{"alg":"HS256","typ":5}"#, BAD_HEADER),
        (r#"{"alg":"none"}"#, BAD_ALGORITHM),
        (r#"{"alg":"None"}"#, BAD_ALGORITHM),
        (r#"{"alg":"hs256"}"#, BAD_ALGORITHM),
        (r#"{"alg":"HS384"}"#, BAD_ALGORITHM),
        (r#"{"alg":"RS256"}"#, BAD_ALGORITHM),
        (r#"{"alg":""}"#, BAD_ALGORITHM),
        (r#"{"alg":["HS256"]}"#, BAD_ALGORITHM),
        (r#"{"typ":"JWT"}"#, BAD_ALGORITHM),
        (r#"{"alg":"none","alg":"HS256"}"#, MALFORMED),
        ("[]", MALFORMED),
        ("", MALFORMED),
        ("\"HS256\"", MALFORMED),
    ] {
        assert_eq!(header(text), wanted, "{text}");
    }
}

#[test]
fn shapes() {
    let good = token(r#"{"sub":"u","exp":1800000060}"#);
    let parts: Vec<&str> = good.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { panic!("{good}") };
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let signature_error = "the token's signature is not valid";
    for (text, wanted) in [
        (good.clone(), GOOD),
        (String::new(), MALFORMED),
        (".".to_owned(), MALFORMED),
        ("..".to_owned(), MALFORMED),
        ("a.b.c".to_owned(), MALFORMED),
        ((*head).to_owned(), MALFORMED),
        (format!("{head}.{claims}"), MALFORMED),
        (format!("{head}.{claims}."), signature_error),
        (format!("{head}..{signature}"), signature_error),
        (format!(".{claims}.{signature}"), MALFORMED),
        (format!("{none}.{claims}."), BAD_ALGORITHM),
        (format!("{good}.x"), signature_error),
        (format!("{good}="), signature_error),
        (format!("{head}=.{claims}.{signature}"), MALFORMED),
        (format!(" {good}"), MALFORMED),
        (format!("{good}\n"), signature_error),
        (signed_bytes(Algorithm::Hs256, br#"{"alg":"HS256"}"#, b"\xff"), MALFORMED),
        (signed_bytes(Algorithm::Hs256, br#"{"alg":"HS256"}"#, b"[]"), MALFORMED),
        (signed_bytes(Algorithm::Hs256, br#"{"alg":"HS256"}"#, b"{} {}"), MALFORMED),
    ] {
        assert_eq!(verdict(&text), wanted, "{text}");
    }
    let padding = "x".repeat(5_700);
    let long = token(&format!(r#"{{"sub":"u","exp":1800000060,"x":"{padding}"}}"#));
    assert!((7_000..=8_192).contains(&long.len()));
    assert_eq!(verdict(&long), GOOD);
    let padding = "x".repeat(6_100);
    let longer = token(&format!(r#"{{"sub":"u","exp":1800000060,"x":"{padding}"}}"#));
    assert_eq!(verdict(&longer), "the token has more than 8192 bytes");
}

#[test]
fn issuer_and_audience_when_configured() {
    let mut options = TokenOptions::new(SECRET);
    options.issuer = Some("https://me".to_owned());
    options.audience = Some("api".to_owned());
    let verifier = TokenVerifier::new(options, Hand::at(NOW).clock());
    for (claims, wanted) in [
        (r#""iss":"https://me","aud":"api""#, Ok(())),
        (r#""iss":"https://me","aud":["x","api"]"#, Ok(())),
        (r#""iss":"https://me","aud":["x"]"#, Err(TokenError::Audience)),
        (r#""iss":"https://me","aud":"API""#, Err(TokenError::Audience)),
        (r#""iss":"https://me","aud":[]"#, Err(TokenError::Audience)),
        (r#""iss":"https://me","aud":["api",1]"#, Err(TokenError::Type("aud"))),
        (r#""iss":"https://me","aud":{}"#, Err(TokenError::Type("aud"))),
        (r#""iss":"https://me""#, Err(TokenError::Lacks("aud"))),
        (r#""iss":"https://me/","aud":"api""#, Err(TokenError::Issuer)),
        (r#""iss":["https://me"],"aud":"api""#, Err(TokenError::Type("iss"))),
        (r#""aud":"api""#, Err(TokenError::Lacks("iss"))),
    ] {
        let token = token(&format!(r#"{{"sub":"u","exp":1800000060,{claims}}}"#));
        assert_eq!(verifier.verify_token(&token).map(|_| ()), wanted, "{claims}");
    }
}
