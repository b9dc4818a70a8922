//! Refuses entries that open what is billed, or bill what is open anyway. Nobody is known who could pay for an open
//! call, so what is both is a mistake, wherever the two are said.

use goldleaves_domain::{NormalPath, PublicRoutes, RoutePattern};
use goldleaves_runtime::settings::Values;

use super::config::{Access, RouteEntry};
use super::routes::{Bills, bills_of, is_below};

/// Notes each entry that opens what is billed, and each whose words `PUBLIC_ROUTES` makes mean nothing.
pub(super) fn check(values: &mut Values, entries: &[RouteEntry], bills: &Bills, public: &PublicRoutes) {
    for entry in entries {
        let (place, path) = (&entry.place, &entry.path);
        if let Some(billed) = opened(entry, bills) {
            let text = format!(
                "opens {path}, and {billed} is billed; expected `access = \"token\"`, or `billable = false` where {path} is \
                 below it"
            );
            values.mistake_at(format!("{place}.access"), text);
        }
        let is_public = NormalPath::normalise(path.as_str()).is_ok_and(|path| public.contains(&path));
        if is_public && entry.billable == Some(true) {
            let text = format!(
                "is true, and PUBLIC_ROUTES opens {path}; expected no such route there: what is open is never billed"
            );
            values.mistake_at(format!("{place}.billable"), text);
        }
        if is_public && entry.access == Some(Access::Token) {
            let text = format!(
                "is token, and PUBLIC_ROUTES opens {path}, which no entry changes; expected no such route there"
            );
            values.mistake_at(format!("{place}.access"), text);
        }
    }
}

/// Returns what is billed of that which an entry opens.
fn opened(entry: &RouteEntry, bills: &Bills) -> Option<RoutePattern> {
    // An entry that is both by its own words has been named already.
    if entry.access != Some(Access::Open) || entry.billable == Some(true) {
        return None;
    }
    let here = bills_of(bills, &entry.path, entry);
    // Other spellings of what is billed below it would be open: case counts for what is opened, not for what is billed.
    let below = || bills.patterns().iter().find(|billed| is_strictly_below(billed, &entry.path, bills, entry)).cloned();
    here.or_else(below)
}

fn is_strictly_below(billed: &RoutePattern, open: &RoutePattern, bills: &Bills, entry: &RouteEntry) -> bool {
    let [billed_path, open_path] = [billed, open].map(|path| path.as_str().to_ascii_lowercase());
    billed_path != open_path && is_below(&billed_path, &open_path) && bills_of(bills, billed, entry).is_some()
}
