//! The rules of rows beside a model of them in Python that was made from the contract: both say the same of any course.

use goldleaves_billing::PeriodState;
use goldleaves_billing::stripe::rules::{
    Adoption, Due, HourRow, Known, LaneSums, Made, MayBeThere, Outcome, Progress, Reading, Revision, RowName, RowState,
    Verdict, adoption, hour_is_there, identifier, lacking, minutes_for, value_of,
};
use goldleaves_domain::Timestamp;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::stripe_client;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use uuid::Uuid;

const MODEL: &str = include_str!("stripe_model.py");
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_772_323_200;
/// Courses of rows, and as many of each other question.
const COURSES: usize = 400;
const STEPS: usize = 40;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
}

fn micros(moment: Option<Timestamp>) -> Value {
    moment.map_or(Value::Null, |moment| json!(moment.unix_micros()))
}

/// A question for the model, and the program's own answer.
struct Asked {
    question: Value,
    answer: Value,
}

fn word_of(due: Due) -> &'static str {
    match due {
        Due::Nothing => "nothing",
        Due::ReadFirst => "read_first",
        Due::Send => "send",
        Due::Hold => "hold",
        Due::Read => "read",
    }
}

fn verdict_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Undecided => "undecided",
        Verdict::Confirmed => "confirmed",
        Verdict::Abandoned => "abandoned",
        Verdict::Missing => "missing",
        Verdict::Differs => "differs",
    }
}

fn outcome_of(step: &Value) -> Option<Outcome> {
    let pause = step["pause"].as_u64().map(std::time::Duration::from_secs);
    let text = "said".to_owned();
    Some(match step["answer"].as_str()? {
        "taken" => Outcome::Taken,
        "unanswered" => Outcome::Unanswered(text),
        "later" => Outcome::Later { error: text, pause },
        "blocked" => Outcome::Blocked(text),
        "refused" => Outcome::Refused(text),
        _ => return None,
    })
}

/// The row after a step, what was due, and what was decided.
fn work(row: Progress, minute: i64, value: i64, step: &Value) -> (Progress, Due, &'static str) {
    let now = at(step["now"].as_i64().unwrap());
    let due = row.due(at(minute), now);
    let read = step["read"].as_i64().unwrap();
    match due {
        Due::Hold => (row.held(), due, ""),
        Due::Send => {
            let row = row.attempted(now);
            let jitter = step["jitter"].as_f64().unwrap();
            let row = match outcome_of(step) {
                Some(outcome) => row.answered(&outcome, now, jitter),
                None => row,
            };
            (row, due, "")
        }
        Due::ReadFirst if read == 0 => (Progress { read_back_at: Some(now), ..row }, due, ""),
        Due::ReadFirst | Due::Read => {
            let has_witness = step["witness"].as_bool().unwrap();
            let reading = Reading { value: i128::from(value), read: i128::from(read), has_witness };
            let (row, verdict) = row.read(&reading, now);
            (row, due, verdict_of(verdict))
        }
        Due::Nothing if row.state == RowState::Failed && step["retry"] == true => {
            (Progress { read_back_at: None, ..row.held() }, due, "")
        }
        Due::Nothing => (row, due, ""),
    }
}

fn course(random: &mut StdRng) -> Asked {
    let (mut now, value) = (START, [1, 7, -3, 5_000_000][random.random_range(0..4)]);
    let minute = now - [90, 2 * HOUR, 30 * HOUR][random.random_range(0..3)];
    let (mut row, mut question, mut answer) =
        (Progress::new(), vec![json!({"minute": minute, "value": value})], vec![]);
    // Courses are of a kind: else few rows would be without an answer for long.
    let kinds = [
        &["taken", "unanswered", "later", "blocked", "refused", "none"][..],
        &["unanswered", "later", "none"],
        &["taken"],
    ];
    let (kinds, mostly) = (kinds[random.random_range(0..3)], [0, value][random.random_range(0..2)]);
    for _ in 0..STEPS {
        now += [1, 45, 600, 900, HOUR, 6 * HOUR, 22 * HOUR, 23 * HOUR, 25 * HOUR][random.random_range(0..9)];
        let read = if random.random_bool(0.7) { mostly } else { [0, value, value + 1][random.random_range(0..3)] };
        let step = json!({
            "now": now, "answer": kinds[random.random_range(0..kinds.len())], "pause": random.random_range(0..2_000),
            "jitter": random.random_range(0..=64) as f64 / 64.0, "read": read, "witness": random.random_bool(0.7),
            "retry": random.random_bool(0.5),
        });
        let (after, due, verdict) = work(row, minute, value, &step);
        row = after;
        let mut shown = vec![json!(word_of(due)), json!(verdict), json!(row.state.as_str())];
        shown.extend([json!(row.attempts), json!(row.key_suffix)]);
        let moments = [row.first_attempt_at, row.last_attempt_at, row.next_attempt_at, row.pushed_at];
        shown.extend(moments.into_iter().chain([row.confirmed_at, row.read_back_at, row.absent_since]).map(micros));
        question.push(step);
        answer.push(Value::from(shown));
    }
    Asked { question: json!(["course", question]), answer: Value::from(answer) }
}

fn places(random: &mut StdRng) -> i16 {
    if random.random_bool(0.5) { 0 } else { 6 }
}

fn sealed(random: &mut StdRng) -> Asked {
    let (mut made, mut rows, mut in_rows) = (Made::default(), Vec::new(), 0);
    for number in 0..random.random_range(0..5) {
        let state = RowState::ALL[random.random_range(0..RowState::ALL.len())];
        let units = random.random_range(-5_000_000_i64..50_000_000);
        made.add(number, state, i128::from(units));
        in_rows += if state == RowState::Abandoned { 0 } else { i128::from(units) };
        rows.push(json!([number, state.as_str(), units]));
    }
    // Up to more than an hour's minutes can say, of either meter.
    let most = [10_i128, 100_000_000, 4 * 10_i128.pow(15), 12 * 10_i128.pow(16), 12 * 10_i128.pow(22)];
    let most = most[random.random_range(0..5)];
    let (mut used, places) = (random.random_range(-most..most), places(random));
    if random.random_bool(0.2) {
        // Just as much as an hour's minutes can say, or one more.
        let full = 60 * 999_999_999_999_998 * if places == 0 { 1_000_000 } else { 1 };
        used = in_rows + used.signum() * full + random.random_range(-1..=1);
    }
    let lacking = lacking(used, made, places);
    let shown = |row: &Revision| json!([row.number, row.units_micro.to_string()]);
    let answer = lacking.map(|rows| rows.iter().map(shown).collect::<Vec<_>>());
    let question = json!(["sealed", {"used": used.to_string(), "made": rows, "places": places}]);
    Asked { question, answer: json!(answer) }
}

fn frozen(random: &mut StdRng) -> Asked {
    let places = places(random);
    let units: Vec<i64> = (0..10).map(|_| random.random_range(-3_000_000..5_000_000)).collect();
    let mut carried = 0;
    let values = units.iter().map(|units| value_of(&mut carried, i128::from(*units), places) as i64);
    let answer = values.map(Value::from).collect();
    Asked { question: json!(["frozen", {"units": units, "places": places}]), answer }
}

fn minute(random: &mut StdRng) -> Asked {
    let now = START + random.random_range(0..HOUR);
    let back = [1, 5, 33 * 24, 34 * 24, 34 * 24 + 1, 40 * 24][random.random_range(0..6)];
    let hour = START - back * HOUR;
    let period = if random.random_bool(0.3) { PeriodState::Closed } else { PeriodState::Open };
    // Of both hours so many minutes, from the first on, are somebody's already, but for one here and there.
    let (own, last) = (random.random_range(0..70), random.random_range(0..130));
    let starts = [(hour, own), (START - HOUR, last)];
    let all = starts.into_iter().flat_map(|(start, count)| (0..count).map(move |minute| start + minute * 60 + 30));
    let taken: Vec<i64> = all.filter(|_| random.random_bool(0.97)).collect();
    let mut free = minutes_for(at(hour), period, at(now)).map(|micros| micros / 1_000_000);
    let answer = free.find(|seconds| !taken.contains(seconds));
    let is_closed = period == PeriodState::Closed;
    let question = json!(["minute", {"now": now, "hour": hour, "closed": is_closed, "taken": taken}]);
    Asked { question, answer: json!(answer) }
}

fn adopted(random: &mut StdRng) -> Asked {
    let (now, value) = (START, random.random_range(0..3_i64));
    let row = random.random_bool(0.8).then(|| {
        let last = [None, Some(now - HOUR), Some(now - DAY), Some(now - DAY + 1)][random.random_range(0..4)];
        (
            RowState::ALL[random.random_range(0..RowState::ALL.len())],
            random.random_range(0..3_i64),
            random.random_range(0..2),
            last,
            random.random_bool(0.5),
        )
    });
    let known = row.map(|(state, value, attempts, last, is_sealed)| Known {
        state,
        value: Some(i128::from(value)),
        attempts,
        last_attempt_at: last.map(at),
        is_sealed,
    });
    let shown = row.map(|(state, value, attempts, last, is_sealed)| {
        let origin = if is_sealed { "sealed" } else { "adopted" };
        json!({"state": state.as_str(), "value": value, "attempts": attempts, "last": last, "origin": origin})
    });
    let answer = match adoption(known.as_ref(), i128::from(value), at(now)) {
        Adoption::Nothing => "nothing",
        Adoption::Confirm => "confirm",
        Adoption::Leave => "leave",
        Adoption::GiveUp => "give_up",
        Adoption::Replace => "replace",
        Adoption::Adopt => "adopt",
    };
    Asked { question: json!(["adopted", {"row": shown, "value": value, "now": now}]), answer: json!(answer) }
}

/// Rows of a lane, and what Stripe has in sum: often just what they say, or what some of them say.
fn rows_and_sum(random: &mut StdRng) -> (Vec<(RowState, i64, bool)>, i64) {
    let mostly = random.random_bool(0.6);
    let row = |random: &mut StdRng| {
        let state = if mostly { RowState::Pushed } else { RowState::ALL[random.random_range(0..RowState::ALL.len())] };
        let value = random.random_range(if mostly { 0..9 } else { -9..9 });
        (state, value, random.random_bool(0.8))
    };
    let rows: Vec<_> = (0..random.random_range(0..5)).map(|_| row(random)).collect();
    let most = if random.random_bool(0.5) { 1.0 } else { 0.7 };
    let sum = rows.iter().filter(|_| random.random_bool(most)).map(|row| row.1).sum::<i64>();
    (rows, sum + [0, 0, 0, 1][random.random_range(0..4)])
}

fn hour(random: &mut StdRng) -> Asked {
    let (rows, sum) = rows_and_sum(random);
    let theirs = random.random_bool(0.95).then_some(sum);
    let ours: Vec<_> =
        rows.iter().map(|(state, value, _)| HourRow { state: *state, value: Some(i128::from(*value)) }).collect();
    let shown: Vec<_> = rows.iter().map(|(state, value, _)| json!([state.as_str(), value])).collect();
    let answer = json!(hour_is_there(&ours, theirs.map(i128::from)));
    Asked { question: json!(["hour", {"rows": shown, "theirs": theirs}]), answer }
}

fn lane(random: &mut StdRng) -> Asked {
    let (rows, total) = rows_and_sum(random);
    let (mut sums, mut shown) = (LaneSums::default(), Vec::new());
    for (number, (state, value, was_sent)) in rows.into_iter().enumerate() {
        // One that was never sent may still say what Stripe has.
        let is_adopted = number == 0 && random.random_bool(0.3);
        let may_be_there = if was_sent || is_adopted { MayBeThere::Yes } else { MayBeThere::No };
        sums.add(state, i128::from(value), may_be_there);
        let origin = if is_adopted { "adopted" } else { "sealed" };
        shown.push(json!([state.as_str(), value, i64::from(was_sent), origin]));
    }
    let answer = json!([sums.is_exceeded_by(i128::from(total)), sums.pushed as i64]);
    Asked { question: json!(["lane", {"rows": shown, "total": total}]), answer }
}

fn named(random: &mut StdRng) -> Asked {
    let generation = Uuid::from_u128(random.random());
    let (tenant, meter) = (["acme", "a/b", "Ünï", "a\nb"][random.random_range(0..4)], ["goldleaves_units", "m"]);
    let (meter, revision) = (meter[random.random_range(0..2)], random.random_range(0..70));
    let hour = START + random.random_range(-1_000..1_000) * HOUR;
    let name = RowName { tenant, meter, hour: at(hour), revision };
    let question = json!(["named", {
        "generation": generation.to_string(), "tenant": tenant, "meter": meter, "hour": hour, "revision": revision,
    }]);
    Asked { question, answer: json!(identifier(generation, &name)) }
}

#[tokio::test]
async fn the_rules_say_what_the_model_says() {
    let wanted = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = wanted.unwrap_or_else(rand::random::<u64>);
    let mut random = StdRng::seed_from_u64(seed);
    let mut asked = Vec::new();
    for _ in 0..COURSES {
        asked.extend([course, sealed, frozen, minute, adopted, hour, lane, named].map(|of| of(&mut random)));
    }
    let scratch = Scratch::new("stripe-model").unwrap();
    let file = scratch.path().join("questions");
    let questions: String = asked.iter().map(|asked| format!("{}\n", asked.question)).collect();
    std::fs::write(&file, questions).unwrap();
    let said = stripe_client::run(MODEL, &[file.to_str().unwrap()]).await.unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), asked.len(), "seed {seed}");
    for (asked, said) in asked.iter().zip(said) {
        assert_eq!(asked.answer, said, "seed {seed}: of {}", asked.question);
    }
}
