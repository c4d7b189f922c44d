//! The one list of everything that has a page. Help, `explain`, the policy check and the report
//! draw on it.

use serde::Serialize;
use serde_json::{Value, json};

use crate::backends::BACKENDS;
use crate::eviction::{OFFLINE, POLICIES};
use crate::filters::foreign::{self, About};
use crate::filters::{Class, DataMode, FILTERS, Kind, ParamError, Properties, Setting};
use crate::formats::FORMATS;

/// A filter, format, eviction policy or backend.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// `filter`, `format`, `eviction` or `backend`.
    pub kind: &'static str,
    pub name: &'static str,
    /// Of a filter that has one.
    pub class: Option<Class>,
    /// Markdown.
    pub page: &'static str,
    /// JSON Schema of the parameters.
    pub schema: Option<Value>,
    /// As built without parameters; none for a filter that needs some.
    pub properties: Option<Properties>,
}

#[must_use]
pub fn entries() -> Vec<Entry> {
    let backends = BACKENDS.iter().map(|(name, page)| page_of("backend", name, page));
    let formats = FORMATS.iter().map(|format| page_of("format", format.name(), format.page()));
    let policies = POLICIES.iter().map(|policy| page_of("eviction", policy.name, policy.page));
    let offline = [page_of("eviction", OFFLINE.0, OFFLINE.1)];
    let filters = FILTERS.iter().map(filter_entry);
    filters.chain(backends).chain(formats).chain(policies).chain(offline).collect()
}

/// An entry of a kind without parameters of its own.
const fn page_of(kind: &'static str, name: &'static str, page: &'static str) -> Entry {
    Entry { kind, name, class: None, page, schema: None, properties: None }
}

fn filter_entry(kind: &Kind) -> Entry {
    Entry {
        kind: "filter",
        name: kind.name,
        class: kind.class,
        page: kind.page,
        schema: Some((kind.schema)()),
        properties: (kind.build)(&json!({}), &setting()).ok().map(|(_, properties)| properties),
    }
}

/// What is wrong with a filter's parameters; empty when nothing is.
#[must_use]
pub fn check_filter(name: &str, params: &Value) -> Vec<ParamError> {
    foreign::build(name, params, &setting()).err().unwrap_or_default()
}

/// What a filter says of itself with these parameters: of a foreign one the only way to know.
///
/// # Errors
/// As `check_filter`.
pub fn describe_filter(name: &str, params: &Value) -> Result<About, Vec<ParamError>> {
    foreign::describe(name, params, &setting()).map(|(_, about)| about)
}

/// A disk to check parameters with; no I/O will reach it.
fn setting() -> Setting {
    Setting {
        disk: "check".to_owned(),
        disks: vec!["check".to_owned()],
        disk_index: 0,
        local_index: 0,
        layer: 0,
        seed: 0,
        longest_bytes: 0,
        disk_bytes: Vec::new(),
        extents: Vec::new(),
        run: String::new(),
        disk_ids: Vec::new(),
        disk_writers: Vec::new(),
        writer: 0,
        is_virtual: true,
        data: DataMode::Bytes,
    }
}
