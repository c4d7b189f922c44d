//! `pass`: the null filter. Its page is below, its cost is the framework's floor.

use serde_json::{Value, json};

use super::{Answer, Built, Cx, Filter, Kind, ParamError, Properties, Setting, Up};
use crate::slab::IoId;

const PAGE: &str = "\
# pass

Accepts each I/O and returns at once, on the way down and on the way up: the null filter of
VMware's own study of the framework. What it adds to an I/O is the floor of any filter's cost.

## Parameters
None.

## Example
```toml
[[filter]]
use = \"pass\"
```

## Class and properties
No class; may be repeated. Transparent: it answers, defers and keeps nothing.

## Unsuitable for
Judging a real filter's handling of data: it never looks at any.

## Source
VMware, 'Performance of vSphere APIs for I/O Filtering', 2015: the null-filter protocol.
";

pub const KIND: Kind = Kind { name: "pass", class: None, page: PAGE, schema, build };

fn schema() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn build(params: &Value, _setting: &Setting) -> Built {
    let unknown: Vec<ParamError> = params
        .as_object()
        .into_iter()
        .flat_map(|table| table.keys())
        .map(|key| ParamError::new(key, "unknown key; pass takes none"))
        .collect();
    if unknown.is_empty() { Ok((Box::new(Pass), Properties::TRANSPARENT)) } else { Err(unknown) }
}

struct Pass;

impl Filter for Pass {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn io_complete(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Up {
        Up::Pass
    }
}
