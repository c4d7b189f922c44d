//! `stall`: fails writes once a budget of bytes is spent.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::filters::{Answer, Built, Cx, Filter, Kind, ParamError, Properties, Setting, params};
use crate::io::Op;
use crate::slab::IoId;
use crate::units::Size;

const PAGE: &str = "\
# stall

Passes writes until a budget of bytes is spent, then fails each with ENOSPC.

## Parameters
- `budget`: how much may be written, such as `\"10GiB\"`. Needed.

## Example
```toml
[[filter]]
use = \"stall\"
budget = \"10GiB\"
```

## Class and properties
No class. It defers nothing and keeps nothing.

## Unsuitable for
Modelling a full file system: discards give nothing back.

## Source
POSIX.1-2017, write(): ENOSPC.
";

pub const KIND: Kind = Kind { name: "stall", class: None, page: PAGE, schema, build };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How much may be written.
    budget: Option<Size>,
}

fn schema() -> Value {
    params::schema_of::<Params>()
}

fn build(table: &Value, _setting: &Setting) -> Built {
    let params: Params = params::parse(table)?;
    let Some(Size(budget_bytes)) = params.budget else {
        return Err(vec![ParamError::new("budget", "expected a size such as \"10GiB\"")]);
    };
    Ok((Box::new(Stall { budget_bytes, left_bytes: budget_bytes }), Properties::TRANSPARENT))
}

struct Stall {
    budget_bytes: u64,
    left_bytes: u64,
}

impl Filter for Stall {
    fn open(&mut self, _slots: usize) {
        self.left_bytes = self.budget_bytes;
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let io = cx.io(io);
        if io.op != Op::Write {
            return Answer::Pass;
        }
        match self.left_bytes.checked_sub(io.length_bytes) {
            Some(left) => {
                self.left_bytes = left;
                Answer::Pass
            }
            None => Answer::Fail(libc::ENOSPC),
        }
    }
}
