//! What a group uses, read back, in the files of either version.

use super::group::Group;
use super::{Controller, files};

impl Group {
    /// A figure in a file of either version.
    pub fn number(&self, controller: Controller, v2: &str, v1: &str) -> Option<u64> {
        let place = self.places().iter().find(|place| place.has(controller))?;
        files::number(&place.path.join(if place.unified { v2 } else { v1 })).ok().flatten()
    }

    /// The number behind a key in a file of either version.
    pub fn keyed(&self, controller: Controller, v2: (&str, &str), v1: (&str, &str)) -> Option<u64> {
        let place = self
            .places()
            .iter()
            .find(|place| place.has(controller) || (place.unified && controller == Controller::Cpu))?;
        let (file, key) = if place.unified { v2 } else { v1 };
        files::keyed(&files::read(&place.path.join(file)).ok()?, key)
    }

    /// A whole file of either version, and whether it is of cgroup v2.
    pub fn text(&self, controller: Controller, v2: &str, v1: &str) -> Option<(bool, String)> {
        let place = self.places().iter().find(|place| place.has(controller))?;
        let file = if place.unified { v2 } else { v1 };
        Some((place.unified, files::read(&place.path.join(file)).ok()?))
    }
}
