//! Orders that lose by our own measurements (`docs/linking.md`, `docs/study.md`) and are kept so that
//! others can compare: what is new should beat them, and what is published beside them.

mod bisect;

pub(crate) use bisect::bisect;
