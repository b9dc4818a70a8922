//! Tests of which statuses are billed.

use goldleaves_domain::BillableStatuses;

fn billed(list: &str) -> Vec<u16> {
    let statuses = BillableStatuses::parse(list).unwrap();
    (0..=u16::MAX).filter(|status| statuses.contains(*status)).collect()
}

#[test]
fn the_default_is_success_and_redirection() {
    assert_eq!(BillableStatuses::default(), BillableStatuses::parse(BillableStatuses::DEFAULT).unwrap());
    assert_eq!(billed("2xx,3xx"), std::iter::once(101).chain(200..400).collect::<Vec<_>>());
}

#[test]
fn switching_protocols_is_billed_when_success_is() {
    assert_eq!(billed("200"), [200]);
    assert_eq!(billed("200, 404 ,5XX"), [200, 404].into_iter().chain(500..600).collect::<Vec<_>>());
    assert!(billed("2xx").starts_with(&[101, 200]));
    assert!(!billed("3xx,4xx,5xx").contains(&101));
}

#[test]
fn every_wrong_word_is_named() {
    let error = BillableStatuses::parse("2xx,1xx,100,600,x,,20,2000,+20").unwrap_err();
    let words = ["1xx", "100", "600", "x", "", "20", "2000", "+20"].map(|word| format!("{word:?}"));
    assert_eq!(error.words, words);
    assert!(error.to_string().contains("\"1xx\", \"100\""));
    assert!("".parse::<BillableStatuses>().is_err());
}

#[test]
fn they_are_said_as_they_are_written() {
    for list in ["2xx,3xx", "201,204,404", "2xx,500,503", "5xx"] {
        assert_eq!(BillableStatuses::parse(list).unwrap().to_string(), list);
    }
    assert_eq!(BillableStatuses::default().to_string(), "2xx,3xx");
}
