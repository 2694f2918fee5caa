//! The web pages of the services, built beforehand and carried in the binary.

use kit::pages::Pages;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct Built;

/// Every page.
pub const PAGES: Pages = Pages::new(|path| Built::get(path).map(|file| file.data));
