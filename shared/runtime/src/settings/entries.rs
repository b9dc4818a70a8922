//! Settings that are lists of tables, `[[routes]]` and the like: each entry is read by itself, key by key, and each of its
//! mistakes is named by its place, `routes[2].upstream`.

use std::collections::BTreeSet;
use std::fmt::Display;

use figment::value::{Dict, Value};

use super::json;
use super::mistakes::Mistake;
use super::nearest::edit_distance;
use super::table::Setting;
use super::values::{Values, as_text};

/// The longest piece of a wrong value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// One table of a list, or one inside of it.
#[derive(Debug)]
pub struct Entry {
    /// `routes[2]`.
    place: String,
    keys: Dict,
    asked: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

/// A key of an entry, and what would be right, to follow "expected".
#[derive(Debug, Clone, Copy)]
pub struct EntryKey {
    /// The key.
    pub name: &'static str,
    /// The right form of a value.
    pub expects: &'static str,
}

impl EntryKey {
    /// A key by this name.
    pub const fn new(name: &'static str, expects: &'static str) -> Self {
        Self { name, expects }
    }
}

impl Values {
    /// The entries of a list; none when it is unset. `None` is a mistake, already noted.
    pub fn entries(&mut self, setting: Setting, entries_max: usize) -> Option<Vec<Entry>> {
        let list = match self.listed(setting)? {
            Value::Array(_, list) => list,
            Value::String(_, text) => self.json_list(setting, &text)?,
            Value::Dict(..) => return self.one_table(setting),
            _ => return self.no_list(setting, "is no list"),
        };
        if list.len() > entries_max {
            return self.no_list(setting, &format!("has {} entries, more than {entries_max}", list.len()));
        }
        let mut entries = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let place = format!("{}[{index}]", setting.key);
            match value {
                Value::Dict(_, keys) => entries.push(Entry::new(place, keys)),
                _ => self.note(Mistake { subject: place, text: format!("is no table; expected {}", setting.expects) }),
            }
        }
        Some(entries)
    }

    fn json_list(&mut self, setting: Setting, text: &str) -> Option<Vec<Value>> {
        match json::read(text, setting.key) {
            Ok(json::JsonList { value: Value::Array(_, list), twice }) => {
                for place in twice {
                    self.mistake_at(place, "is written twice; expected it once");
                }
                Some(list)
            }
            Ok(_) => self.no_list(setting, "is JSON but no array"),
            Err(error) => self.no_list(setting, &format!("is not JSON: {error}")),
        }
    }

    /// A list of one entry needs both brackets, too.
    fn one_table<T>(&mut self, setting: Setting) -> Option<T> {
        let key = setting.key;
        let text = format!("is one table, [{key}]; expected a list of tables, each of which begins with [[{key}]]");
        self.mistake_at(key, text);
        None
    }

    fn no_list<T>(&mut self, setting: Setting, why: &str) -> Option<T> {
        self.mistake(setting, why);
        None
    }

    /// Takes the mistakes of an entry of which everything was read, unknown keys included; `true` when there are none.
    pub fn close(&mut self, entry: Entry) -> bool {
        let mistakes = entry.finish();
        let is_good = mistakes.is_empty();
        mistakes.into_iter().for_each(|mistake| self.note(mistake));
        is_good
    }
}

impl Entry {
    fn new(place: String, keys: Dict) -> Self {
        Self { place, keys, asked: BTreeSet::new(), mistakes: Vec::new() }
    }

    /// Where it stands: `routes[2]`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns whether a key is present.
    pub fn has(&self, key: EntryKey) -> bool {
        self.keys.contains_key(key.name)
    }

    /// A value that must be there.
    pub fn required<T, E: Display>(&mut self, key: EntryKey, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.optional(key, parse)?;
        if value.is_none() {
            self.mistake(key, "is missing");
        }
        value
    }

    /// A value that may be absent. The outer `None` is a mistake, already noted.
    pub fn optional<T, E: Display>(
        &mut self,
        key: EntryKey,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        let Some(value) = self.take(key) else { return Some(None) };
        let Some(text) = as_text(&value).filter(|_| !matches!(value, Value::Array(..))) else {
            self.mistake(key, "is a list or a table");
            return None;
        };
        self.parsed(key, None, &text, parse).map(Some)
    }

    /// A value that is true or false, and no text that reads so: `"no"` in quotes may be a name. The outer `None` is a mistake, already noted.
    pub fn flag(&mut self, key: EntryKey) -> Option<Option<bool>> {
        match self.take(key) {
            None => Some(None),
            Some(Value::Bool(_, value)) => Some(Some(value)),
            Some(Value::String(_, text)) => self.mistaken(key, &format!("is the text {:?}", shown(&text))),
            Some(other) => {
                let text = as_text(&other).map_or("a table or nothing".to_owned(), |text| shown(&text));
                self.mistaken(key, &format!("is {text}"))
            }
        }
    }

    /// The texts of a list, or one text alone; `None` when it is not there. The outer `None` is a mistake, already noted.
    pub fn list<T, E: Display>(
        &mut self,
        key: EntryKey,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Option<Vec<T>>> {
        let (values, is_list) = match self.take(key) {
            None => return Some(None),
            Some(Value::Array(_, values)) => (values, true),
            Some(value) => (vec![value], false),
        };
        if values.is_empty() {
            self.mistake(key, "is empty");
            return None;
        }
        let mut parsed = Some(Vec::with_capacity(values.len()));
        for (index, value) in values.iter().enumerate() {
            let index = is_list.then_some(index);
            let one = match as_text(value).filter(|_| !matches!(value, Value::Array(..))) {
                Some(text) => self.parsed(key, index, &text, &mut parse),
                None => {
                    self.note(key, index, "is a list or a table");
                    None
                }
            };
            parsed = parsed.zip(one).map(|(mut all, one)| {
                all.push(one);
                all
            });
        }
        parsed.map(Some)
    }

    /// A table inside; give it back to [`Entry::close`]. The outer `None` is a mistake, already noted.
    pub fn table(&mut self, key: EntryKey) -> Option<Option<Self>> {
        match self.take(key) {
            None => Some(None),
            Some(Value::Dict(_, keys)) => Some(Some(Self::new(format!("{}.{}", self.place, key.name), keys))),
            Some(_) => {
                self.mistake(key, "is no table");
                None
            }
        }
    }

    /// Takes the mistakes of a table inside.
    pub fn close(&mut self, inner: Self) {
        self.mistakes.extend(inner.finish());
    }

    /// Notes what is wrong with a key.
    pub fn mistake(&mut self, key: EntryKey, why: &str) {
        self.note(key, None, why);
    }

    /// Notes what is wrong with one item of a list.
    pub fn mistake_in(&mut self, key: EntryKey, index: usize, why: &str) {
        self.note(key, Some(index), why);
    }

    /// Works like [`Entry::mistake`], for where nothing can be read on.
    pub fn mistaken<T>(&mut self, key: EntryKey, why: &str) -> Option<T> {
        self.mistake(key, why);
        None
    }

    fn parsed<T, E: Display>(
        &mut self,
        key: EntryKey,
        index: Option<usize>,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text).inspect_err(|error| self.note(key, index, &format!("{:?} is wrong: {error}", shown(text)))).ok()
    }

    fn note(&mut self, key: EntryKey, index: Option<usize>, why: &str) {
        let item = index.map_or(String::new(), |index| format!("[{index}]"));
        let subject = format!("{}.{}{item}", self.place, key.name);
        self.mistakes.push(Mistake { subject, text: format!("{why}; expected {}", key.expects) });
    }

    fn take(&mut self, key: EntryKey) -> Option<Value> {
        self.asked.insert(key.name);
        self.keys.get(key.name).cloned()
    }

    fn finish(mut self) -> Vec<Mistake> {
        for unknown in self.keys.keys().filter(|key| !self.asked.contains(key.as_str())) {
            let nearest =
                self.asked.iter().min_by_key(|known| edit_distance(unknown, known)).copied().unwrap_or_default();
            self.mistakes.push(Mistake {
                subject: format!("{}.{unknown}", self.place),
                text: format!("is no key here; the nearest known one is `{nearest}`"),
            });
        }
        self.mistakes
    }
}

/// The beginning of a wrong value.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{parse, table};
    use super::*;

    const NAME: EntryKey = EntryKey::new("name", "a name");
    const SECONDS: EntryKey = EntryKey::new("timeout_secs", "seconds");
    const HEALTH: EntryKey = EntryKey::new("health", "a table");
    const PATHS: EntryKey = EntryKey::new("paths", "paths");
    const BILLABLE: EntryKey = EntryKey::new("billable", "true or false");

    fn path(text: &str) -> Result<String, &'static str> {
        if text.starts_with('/') { Ok(text.to_owned()) } else { Err("is no path") }
    }

    fn read(values: &mut Values) -> Vec<String> {
        let mut names = Vec::new();
        for mut entry in values.entries(table::UPSTREAMS, 3).unwrap_or_default() {
            names.extend(entry.required(NAME, parse::text));
            entry.optional(SECONDS, parse::seconds);
            entry.list(PATHS, path);
            entry.flag(BILLABLE);
            if let Some(Some(mut health)) = entry.table(HEALTH) {
                health.required(SECONDS, parse::seconds);
                entry.close(health);
            }
            values.close(entry);
        }
        names
    }

    #[test]
    fn the_environment_replaces_the_list_of_the_file() {
        let file = "[[upstreams]]\nname = \"a\"\ntimeout_secs = 5\n[[upstreams]]\nname = \"b\"\nhealth = { timeout_secs = 1 }\n";
        let mut values = Values::load::<&str, &str>([], Some(file));
        assert_eq!(read(&mut values), ["a", "b"]);
        values.finish(Some(())).unwrap();
        let json = r#"[{"name": "c", "timeout_secs": 0.5, "paths": ["/a", "/b"], "health": {"timeout_secs": 2}}]"#;
        let mut values = Values::load([("UPSTREAMS", json)], Some(file));
        assert_eq!(read(&mut values), ["c"]);
        values.finish(Some(())).unwrap();
    }

    #[test]
    fn a_list_that_is_written_as_one_table_is_named_as_such() {
        let mut values = Values::load::<&str, &str>([], Some("[upstreams]\nname = \"a\"\n"));
        assert!(read(&mut values).is_empty());
        let mistakes = values.finish(Some(())).unwrap_err().to_string();
        let line =
            "upstreams: is one table, [upstreams]; expected a list of tables, each of which begins with [[upstreams]]";
        assert!(mistakes.contains(line) && !mistakes.contains("unknown key"), "{mistakes}");
    }

    #[test]
    fn every_mistake_is_named_by_its_place() {
        let file = "[[upstreams]]\nnam = \"a\"\ntimeout_secs = \"x\"\npaths = []\n[[upstreams]]\nname = 1\nhealth = { timeout = 1 }\n";
        let mut values = Values::load::<&str, &str>([], Some(file));
        read(&mut values);
        let mistakes = values.finish(Some(())).unwrap_err().to_string();
        for line in [
            "upstreams[0].name: is missing; expected a name",
            "upstreams[0].nam: is no key here; the nearest known one is `name`",
            "upstreams[0].timeout_secs: \"x\" is wrong: is not a number of seconds; expected seconds",
            "upstreams[0].paths: is empty; expected paths",
            "upstreams[1].health.timeout_secs: is missing; expected seconds",
            "upstreams[1].health.timeout: is no key here; the nearest known one is `timeout_secs`",
        ] {
            assert!(mistakes.contains(line), "{line} is not in\n{mistakes}");
        }
        for (json, why) in
            [("{}", "no array"), ("[", "is not JSON"), ("[1]", "[0]: is no table"), ("[{},{},{},{}]", "4 entries")]
        {
            let mut values = Values::load([("UPSTREAMS", json)], None);
            read(&mut values);
            let mistakes = values.finish(Some(())).unwrap_err().to_string();
            assert!(mistakes.contains(why), "{mistakes}");
        }
    }
    #[test]
    fn an_item_of_a_list_is_named_by_its_place() {
        let json = r#"[{"name": "a", "paths": ["/a", "b", ["/c"], {}, "d"]}, {"name": "b", "paths": "c"}]"#;
        let mut values = Values::load([("UPSTREAMS", json)], None);
        read(&mut values);
        let mistakes = values.finish(Some(())).unwrap_err().to_string();
        for line in [
            "upstreams[0].paths[1]: \"b\" is wrong: is no path; expected paths",
            "upstreams[0].paths[2]: is a list or a table",
            "upstreams[0].paths[3]: is a list or a table",
            "upstreams[0].paths[4]: \"d\" is wrong",
            "upstreams[1].paths: \"c\" is wrong",
        ] {
            assert!(mistakes.contains(line), "{line} is not in\n{mistakes}");
        }
    }

    #[test]
    fn a_member_of_json_is_written_once() {
        let json = r#"[{"name": "a", "name": "b", "name": "c", "health": {"timeout_secs": 1, "timeout_secs": 2}},
            {"name": "d"}, {"name": "e", "name": "e"}]"#;
        let mut values = Values::load([("UPSTREAMS", json)], None);
        read(&mut values);
        let mistakes = values.finish(Some(())).unwrap_err().to_string();
        assert!(mistakes.starts_with("3 settings are wrong:"), "{mistakes}");
        for place in ["upstreams[0].name", "upstreams[0].health.timeout_secs", "upstreams[2].name"] {
            assert!(mistakes.contains(&format!("{place}: is written twice; expected it once")), "{mistakes}");
        }
    }

    #[test]
    fn true_and_false_are_no_texts() {
        let mistakes = |value: &str| {
            let json = format!(r#"[{{"name": "a", "billable": {value}}}]"#);
            let mut values = Values::load([("UPSTREAMS", json.as_str())], None);
            read(&mut values);
            values.finish(Some(())).map_or_else(|mistakes| mistakes.to_string(), |()| String::new())
        };
        assert_eq!(mistakes("true"), String::new());
        assert_eq!(mistakes("false"), String::new());
        for (value, why) in [
            (r#""yes""#, "is the text \"yes\""),
            (r#""true""#, "is the text \"true\""),
            ("1", "is 1"),
            ("null", "is a table or nothing"),
        ] {
            let mistakes = mistakes(value);
            assert!(
                mistakes.contains(&format!("upstreams[0].billable: {why}; expected true or false")),
                "{value}: {mistakes}"
            );
        }
    }
}
