//! Where the service meets HTTP.
//!
//! [`api`](mod@api) holds the operations below `/api/v1/files` that speak JSON; [`read`] and
//! [`write`](mod@write) what carries bytes; [`root`] the same files directly at `/{path}`, as a
//! WebDAV server has them.

use axum::routing::any;
use kit::{Api, Wire};

use crate::Files;

pub mod api;
pub mod archives;
pub mod read;
pub mod remote;
pub mod root;
pub mod write;

/// The operations of the service.
pub fn api(files: &Files) -> Api {
    let all = files.clone();
    let rest = any(move |request| {
        let files = all.clone();
        async move { root::answer(files, request).await }
    });
    let mut api = Api::new(
        "files",
        "The files of the computer: read, write, find, move, remove.",
    )
    .wire(Wire::FILES)
    .op::<api::Version>(files)
    .op::<api::Stat>(files)
    .op::<api::RealPath>(files)
    .op::<api::Glob>(files)
    .op::<api::Grep>(files)
    .op::<api::Chmod>(files)
    .op::<api::Chown>(files)
    .op::<api::Copy>(files)
    .op::<api::Move>(files)
    .op::<api::Operate>(files)
    .op::<api::Modify>(files)
    .op::<api::Delete>(files)
    .op::<archives::ListExtractions>(files)
    .other_methods(rest.clone())
    .fallback(rest);
    api = remote::add(api, files);
    for raw in read::raws(files)
        .into_iter()
        .chain(write::raws(files))
        .chain(root::raws())
        .chain(archives::raws())
    {
        api = api.raw(raw);
    }
    api
}
