//! Which image of an index is meant.

use super::spec::MAX_JSON;
use super::{Config, ContentError, Descriptor, Document, Manifest, Platform, Store, media};

/// How deep indexes may lie in each other. A digest cannot name what holds it, so there are no loops to find,
/// but there may be long ways.
const MAX_DEPTH: usize = 4;

/// An image for one platform, with its documents.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Names the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: Config,
}

impl Store {
    /// The manifest or index that a descriptor names.
    ///
    /// # Errors
    /// It is not there, damaged, or not what the descriptor says.
    pub fn document(&self, image: &Descriptor) -> Result<Document, ContentError> {
        let bytes = self.read(&image.digest, MAX_JSON)?;
        if bytes.len() as u64 != image.size {
            let (digest, expected, found) = (image.digest, image.size, Some(bytes.len() as u64));
            return Err(ContentError::Size { digest, expected, found });
        }
        Document::from_slice_as(&bytes, &image.media_type)
    }

    /// The image for `platform`: what `image` names, or the best of an index. Without an index, any platform is
    /// taken when none is asked for.
    ///
    /// # Errors
    /// There is none for the platform, or one of its documents is not there or cannot be right.
    pub fn choose(&self, image: &Descriptor, platform: Option<&Platform>) -> Result<Chosen, ContentError> {
        let descriptor = self.choose_manifest(image, platform)?;
        let manifest = match self.document(&descriptor)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => return Err(ContentError::refused(descriptor.digest, "it is an index")),
        };
        if !media::is_config(&manifest.config.media_type) {
            let kind = manifest.config.media_type.escape_debug();
            let why = format!("it is no image of a file system: its configuration is `{kind}`");
            return Err(ContentError::refused(format!("image {}", descriptor.digest), why));
        }
        let bytes = self.read(&manifest.config.digest, MAX_JSON)?;
        let config = Config::from_slice(&bytes)?;
        match platform {
            Some(wanted) if wanted.fit(&config.platform()).is_none() => {
                let (wanted, has) = (wanted.clone(), config.platform().to_string());
                Err(ContentError::NoPlatform { wanted, has })
            }
            _ => Ok(Chosen { descriptor, manifest, config }),
        }
    }

    /// The manifest alone: which one of an index.
    ///
    /// # Errors
    /// As [`Store::choose`].
    pub fn choose_manifest(
        &self,
        image: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Descriptor, ContentError> {
        let mut image = image.clone();
        for _ in 0..MAX_DEPTH {
            if !media::is_index(&image.media_type) {
                return Ok(image);
            }
            let Document::Index(index) = self.document(&image)? else {
                return Err(ContentError::refused(image.digest, "it is no index"));
            };
            image = pick(&index.manifests, platform)?.clone();
        }
        Err(ContentError::refused(image.digest, format!("indexes lie in each other {MAX_DEPTH} deep")))
    }
}

/// The child of an index that serves the platform (this machine's, when none is asked for) best. An only child
/// that does not say what it is for is taken for what is asked; its configuration says whether it is.
pub(crate) fn pick<'a>(
    children: &'a [Descriptor],
    platform: Option<&Platform>,
) -> Result<&'a Descriptor, ContentError> {
    let wanted = platform.cloned().unwrap_or_default();
    let images: Vec<&Descriptor> = children
        .iter()
        .filter(|child| !child.is_attestation())
        .filter(|child| media::is_index(&child.media_type) || media::is_manifest(&child.media_type))
        .collect();
    let mut best: Option<(u8, &Descriptor)> = None;
    for child in &images {
        let fit = match &child.platform {
            Some(offered) => wanted.fit(offered),
            None => (images.len() == 1 || media::is_index(&child.media_type)).then_some(0),
        };
        // The first of several that serve as well.
        if let Some(fit) = fit
            && best.is_none_or(|(other, _)| fit > other)
        {
            best = Some((fit, child));
        }
    }
    best.map(|(_, child)| child).ok_or_else(|| {
        let has = images.iter().filter_map(|child| child.platform.as_ref()).map(Platform::to_string);
        ContentError::NoPlatform { wanted, has: has.take(30).collect::<Vec<_>>().join(", ") }
    })
}
