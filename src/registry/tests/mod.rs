//! Fixtures: image layouts made by code, a real registry, and a server that follows a script.

mod auth;
mod faults;
mod fixture;
mod layout;
mod live;
mod reference;
mod tokens;
