//! A disk's server: its settings, and the way from a URI to connections that are ready.

use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::handshake::{self, Export};
use super::link::Link;
use super::socket::{Deadline, Socket};
use super::uri::Uri;
use crate::error::{Error, Result};
use crate::filters::{ParamError, params};
use crate::units::Time;

const CONNECTIONS_MAX: usize = 16;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Connections, where the server shares its cache among them.
    connections: Option<usize>,
    /// How long a request may wait for its answer.
    timeout: Option<Time>,
    /// For the connection and its handshake.
    connect_timeout: Option<Time>,
}

/// How to talk to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub connections: usize,
    pub timeout_ns: u64,
    pub connect_timeout_ns: u64,
}

impl Settings {
    /// # Errors
    /// Every fault among the parameters.
    pub fn parse(params: &Value) -> Result<Self, Vec<ParamError>> {
        let given: Params = params::parse(params)?;
        let connections = given.connections.unwrap_or(1);
        let mut faults = Vec::new();
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let message = format!("expected 1 to {CONNECTIONS_MAX}, got {connections}");
            faults.push(ParamError::new("connections", message));
        }
        let mut time = |key: &str, given: Option<Time>, default_ns| match given {
            Some(Time(0)) => {
                faults.push(ParamError::new(key, "expected a time above 0 such as \"5s\""));
                default_ns
            }
            other => other.map_or(default_ns, |Time(ns)| ns),
        };
        let timeout_ns = time("timeout", given.timeout, 30_000_000_000);
        let connect_timeout_ns = time("connect_timeout", given.connect_timeout, 5_000_000_000);
        if faults.is_empty() {
            Ok(Self { connections, timeout_ns, connect_timeout_ns })
        } else {
            Err(faults)
        }
    }
}

/// What is wrong with a policy's last filter that names a server; empty when nothing is.
#[must_use]
pub fn check(uri: &str, params: &Value) -> Vec<ParamError> {
    let mut faults = Settings::parse(params).err().unwrap_or_default();
    if let Err(message) = Uri::parse(uri) {
        faults.insert(0, ParamError::new("use", message));
    }
    faults
}

/// A server that is ready.
pub struct Server {
    pub export: Export,
    pub settings: Settings,
    /// Until the backend takes them.
    pub(super) sockets: Vec<Socket>,
    pub(super) links: Range<usize>,
}

impl Server {
    /// Connects and shakes hands, on as many connections as were asked for and can be used.
    ///
    /// # Errors
    /// `Input` when nobody is there or has such an export, `Failed` when the server cannot be
    /// understood or does not answer in time.
    pub fn connect(uri: &Uri, settings: Settings) -> Result<Self> {
        let (first, mut export) = one(uri, settings)?;
        let mut sockets = vec![first];
        if export.multi_conn {
            while sockets.len() < settings.connections {
                let (socket, other) = one(uri, settings)?;
                if other != export {
                    return Err(
                        Error::failed("its connections disagree on the export").with("file", uri)
                    );
                }
                sockets.push(socket);
            }
        }
        export.connections = sockets.len();
        Ok(Self { export, settings, sockets, links: 0..0 })
    }

    /// The connection with the fewest requests open.
    pub(super) fn pick(&self, links: &[Link]) -> usize {
        let open = |at: &usize| links[*at].parts.open();
        self.links.clone().min_by_key(open).unwrap_or(self.links.start)
    }
}

fn one(uri: &Uri, settings: Settings) -> Result<(Socket, Export)> {
    let deadline = Deadline::after_ns(settings.connect_timeout_ns);
    let socket = Socket::connect(&uri.address, deadline).map_err(|error| {
        let late = error.kind() == std::io::ErrorKind::TimedOut;
        let fail = if late { Error::failed } else { Error::input };
        fail("cannot connect to the NBD server").with("file", uri).caused_by(error)
    })?;
    let export = handshake::shake(&socket, uri, deadline)?;
    Ok((socket, export))
}
