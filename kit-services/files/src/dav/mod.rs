//! WebDAV, classes 1 and 2 (RFC 4918): what [`crate::ops::root`] does not do with plain files.
//!
//! [`xml`] reads bodies, [`condition`] the header `If`, [`lock`] is the table of locks,
//! [`property`] what clients keep beside a file, [`answer`] the methods.

pub mod answer;
pub mod condition;
pub mod lock;
pub mod property;
pub mod xml;
