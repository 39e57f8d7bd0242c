//! The tests, by subject.

mod basics;
mod end;
mod images;
mod isolation;
mod limits;
mod terminal;
