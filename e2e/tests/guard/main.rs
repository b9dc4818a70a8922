//! The instructions of a request, as callgrind counts them on the thread of a core: with no new setting it costs what is written
//! down, and ten thousand routes cost what ten do.
//!
//! Every run of the tests counts those of a debug build, with a thousand routes: it reads many slowly. `cargo xtask bench guard` counts those
//! of the released one, whose figure is held closer, as is an upstream of HTTP/2. `GOLDLEAVES_GUARD_ROUNDS` says how often each is counted.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

mod figures;
mod request;

use goldleaves_toolbox::Toolbox;
use request::{Asked, Behind, Counted};

use figures::Profile;

/// The excess that a request may cost with many routes over one with ten, in parts of a thousand.
const ROUTES_PER_MILLE: u64 = 5;
/// The excess, in parts of a thousand, that a call may cost over an upstream of HTTP/2 over one of HTTP/1.1: what it
/// costs now. The aim is 200, of all processor time, the kernel's included.
const TWO_PER_MILLE: u64 = 1_000;

/// A number of routes as a file of settings, of which the last is the one that is called.
fn routes(count: usize) -> String {
    let route = |path: &str| format!("[[routes]]\npath = \"{path}\"\nupstream = \"docs\"\n");
    let others = (1..count).map(|number| route(&format!("/other/{number}/{}", number % 7)));
    others.chain([route("/api/v1/documents")]).collect()
}

fn at_most(cost: u64, of: u64, per_mille: u64) -> bool {
    cost * 1_000 <= of * (1_000 + per_mille)
}

/// The scenarios, in the order of the table.
fn scenarios(profile: Profile) -> [(&'static str, Asked); 4] {
    let many = match profile {
        Profile::Debug => 1_000,
        Profile::Release => 10_000,
    };
    let docs = |protocol, count| Asked { behind: Behind::Docs(protocol), file: routes(count) };
    [
        ("UPSTREAM_URL alone", Asked { behind: Behind::Url, file: String::new() }),
        ("10 routes, an upstream of HTTP/1.1", docs("http1", 10)),
        ("many routes, an upstream of HTTP/1.1", docs("http1", many)),
        ("10 routes, an upstream of HTTP/2", docs("h2", 10)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_costs_what_it_did_and_ten_thousand_routes_cost_what_ten_do() {
    let profile = Profile::of_the_programs();
    if let Err(missing) = Toolbox::of_target().valgrind() {
        // It is there for few systems; who asks for the count by name gets an error.
        assert_eq!(profile, Profile::Debug, "nothing can be counted: {missing}");
        println!("left out, nothing was counted: {missing}");
        return;
    }
    // What is under way at the wrong moment only ever adds to a count, so that the least of a few is what a request costs.
    let mut counted = scenarios(profile).map(|(what, asked)| (what, asked, Counted::default()));
    for _ in 0..profile.rounds() {
        for (what, asked, counted) in &mut counted {
            println!("{what}: {}", counted.again(asked).await.unwrap());
        }
    }
    let [plain, ten, many, two] = counted.map(|(what, _, counted)| {
        println!("| {what} | {} |", counted.each());
        counted.each()
    });
    assert!(at_most(many, ten, ROUTES_PER_MILLE), "10 routes: {ten} instructions, many routes: {many}");
    figures::hold_against(profile, plain);
    if profile == Profile::Release {
        assert!(at_most(two, ten, TWO_PER_MILLE), "HTTP/1.1: {ten} instructions, HTTP/2: {two}");
    }
}
