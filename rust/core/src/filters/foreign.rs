//! Filters of other makes: a shared library ([`super::dylib`]) or Python, and what they share.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Built, Class, Cx, Filter, Kind, ParamError, Properties, Setting, dylib, find};
use crate::slab::{IoId, NONE};

/// `use = "so:PATH"`.
pub const LIBRARY: &str = "so:";
/// `use = "py:MODULE:CLASS"`.
pub const PYTHON: &str = "py:";
/// Words that foreign filters may coin for events and gauges in one process.
const WORDS_MAX: usize = 4096;

/// Builds a Python filter from `MODULE:CLASS`: the bindings set it, because nothing in here knows
/// an interpreter.
pub type PythonBuild = fn(&str, &Value, &Setting) -> Described;

static PYTHON_BUILD: OnceLock<PythonBuild> = OnceLock::new();

/// A foreign filter with what it says of itself.
pub type Described = Result<(Box<dyn Filter>, About), Vec<ParamError>>;

/// What a filter says of itself: the catalogue's columns, asked of the filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    pub name: String,
    pub class: Option<Class>,
    pub page: String,
    pub properties: Properties,
}

/// Whether a policy's word for a filter names one of another make.
#[must_use]
pub fn is_meant(name: &str) -> bool {
    name.starts_with(LIBRARY) || name.starts_with(PYTHON)
}

/// Tells how Python filters are built. The first one told is kept.
pub fn set_python(build: PythonBuild) {
    let _ = PYTHON_BUILD.set(build);
}

/// Builds the filter that a policy names: a built-in, or a foreign one by its prefix.
///
/// # Errors
/// Every fault of the parameters; an unknown or broken filter is the fault of `use`.
pub fn build(name: &str, params: &Value, setting: &Setting) -> Built {
    if let Some(kind) = find(name) {
        return (kind.build)(params, setting);
    }
    describe(name, params, setting).map(|(filter, about)| (filter, about.properties))
}

/// As [`build`], with what the filter says of itself.
///
/// # Errors
/// As [`build`].
pub fn describe(name: &str, params: &Value, setting: &Setting) -> Described {
    if let Some(path) = name.strip_prefix(LIBRARY) {
        return dylib::build(path, params, setting);
    }
    if let (Some(place), Some(build)) = (name.strip_prefix(PYTHON), PYTHON_BUILD.get()) {
        return build(place, params, setting);
    }
    match find(name) {
        Some(kind) => (kind.build)(params, setting).map(|(filter, p)| (filter, of_kind(kind, p))),
        None => Err(vec![ParamError::new("use", format!("no filter {name:?}"))]),
    }
}

fn of_kind(kind: &Kind, properties: Properties) -> About {
    let (name, page) = (kind.name.to_owned(), kind.page.to_owned());
    About { name, class: kind.class, page, properties }
}

/// The class of that name, as the framework's API spells it.
#[must_use]
pub fn class_named(name: &str) -> Option<Class> {
    serde_json::from_value(Value::String(name.to_owned())).ok()
}

/// The same word for as long as the process lives. Words beyond a bound are all `other`: a filter
/// that makes up a new one each time must not fill the memory.
#[must_use]
pub fn word(text: &str) -> &'static str {
    static WORDS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let words = words.get_or_insert_default();
    if let Some(known) = words.get(text) {
        return known;
    }
    if words.len() >= WORDS_MAX {
        return "other";
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    words.insert(kept);
    kept
}

/// The detail of an event as it is kept: what is no JSON object becomes the text of one.
#[must_use]
pub fn detail(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => text.to_owned(),
        _ => serde_json::json!({ "text": text }).to_string(),
    }
}

/// Tells of a call that the contract does not allow.
pub(super) fn misuse(cx: &mut Cx<'_>, what: &str, io: IoId) {
    let seq = (io != NONE && cx.has(io)).then(|| cx.io(io).seq);
    cx.event("misuse", serde_json::json!({ "what": what, "io": seq }).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_once_and_details_are_objects() {
        let (a, b) = (word("evict"), word(&["ev", "ict"].concat()));
        assert!(std::ptr::eq(a, b));
        assert_eq!(detail("{\"a\":1}"), "{\"a\":1}");
        assert_eq!(detail("[1]"), "{\"text\":\"[1]\"}");
        assert_eq!(detail("no \"json\""), "{\"text\":\"no \\\"json\\\"\"}");
    }

    #[test]
    fn classes_have_the_names_of_the_api() {
        assert_eq!(class_named("datastoreIoControl"), Some(Class::DatastoreIoControl));
        assert_eq!(class_named("inspection"), Some(Class::Inspection));
        assert_eq!(class_named("antivirus"), None);
    }
}
