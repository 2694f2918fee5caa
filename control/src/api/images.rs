//! Images that containers can be made from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::containers::invalid;
use super::page::{Asked, Limit, Order, Page, Pagination};
use super::text::IdText;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::runtime;
use crate::store::ratings::{self, Rating};
use crate::time::{self, SECOND};

#[derive(Serialize, JsonSchema)]
pub struct Image {
    id: String,
    /// What `container_image` takes.
    alias: String,
    description: String,
    image_name: String,
    architecture: &'static str,
    os: String,
    release: String,
    variant: Option<String>,
    /// Bytes.
    size: u64,
    /// Always 0: whoever may use the node may use its images.
    price: f64,
    added_date: String,
    /// Of 5; 0 where nobody has rated it.
    average_rating: f64,
    rating_count: u32,
    /// The picture itself, as a `data:` URL.
    icon_url: Option<String>,
    prespawn: bool,
}

/// An image with what the caller thinks of it.
#[derive(Serialize, JsonSchema)]
pub struct MyImage {
    #[serde(flatten)]
    image: Image,
    user_rating: Option<f64>,
    has_rated: bool,
}

impl Image {
    fn of(control: &Control, image: runtime::Image, rating: Rating) -> Image {
        let prespawn = control.prespawn.has_image(&image.name);
        let (os, release) = image.name.split_once('-').unwrap_or((&image.name, ""));
        let picture = icon(os);
        Image {
            id: id(&image.name).to_string(),
            os: os.to_owned(),
            release: release.to_owned(),
            alias: image.name.clone(),
            image_name: image.name,
            description: image.description,
            architecture: control.host.architecture,
            variant: None,
            size: image.size,
            price: 0.0,
            added_date: time::text(image.created.saturating_mul(SECOND)),
            average_rating: rating.average,
            rating_count: rating.count,
            icon_url: Some(picture),
            prespawn,
        }
    }
}

/// Images are known by name; their id follows from it.
fn id(name: &str) -> Id {
    let mut bits = [0; 12];
    bits.copy_from_slice(&Sha256::digest(format!("image {name}"))[..12]);
    Id(bits)
}

/// A picture for an operating system: its first letter in a colour of its own.
fn icon(os: &str) -> String {
    let letter = os.chars().find(char::is_ascii_alphanumeric).unwrap_or('?');
    let letter = letter.to_ascii_uppercase();
    let hue = u32::from(Sha256::digest(os)[0]) * 360 / 256;
    let svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" fill="hsl({hue} 55% 42%)"/><text x="32" y="45" font-family="sans-serif" font-size="38" font-weight="700" text-anchor="middle" fill="#fff">{letter}</text></svg>"##
    );
    format!("data:image/svg+xml;base64,{}", STANDARD.encode(svg))
}

/// All images, each with what the caller thinks of it.
async fn rated(control: &Control, call: &Call) -> Result<Vec<(Image, Option<f64>)>, Fault> {
    let user = Principal::of(call)?.user.id;
    let images = control.runtime.images().await.map_err(|error| {
        tracing::warn!(error = %crate::auth::chain(&error), "could not list the images");
        Fault::unavailable("the node cannot list its images now; try again")
            .code("RUNTIME_UNAVAILABLE")
    })?;
    let ratings = control
        .store
        .read("read ratings of images", move |db| ratings::all(db, user))
        .await
        .map_err(broken)?;
    Ok(images
        .into_iter()
        .map(|image| {
            let rating = ratings.get(&image.name).copied().unwrap_or_default();
            (Image::of(control, image, rating), rating.own)
        })
        .collect())
}

async fn all(control: &Control, call: &Call) -> Result<Vec<Image>, Fault> {
    let images = rated(control, call).await?;
    Ok(images.into_iter().map(|(image, _)| image).collect())
}

async fn one(control: &Control, call: &Call, wanted: Id) -> Result<Image, Fault> {
    let wanted = wanted.to_string();
    let images = all(control, call).await?;
    images
        .into_iter()
        .find(|image| image.id == wanted)
        .ok_or_else(|| {
            Fault::not_found(format!(
                "no image {wanted}; list them with `hoody images list`"
            ))
            .code("NOT_FOUND")
        })
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    Alias,
    AddedDate,
    Price,
    Rating,
}

fn fits(least: Option<f64>, value: f64, most: Option<f64>) -> bool {
    least.is_none_or(|least| least <= value) && most.is_none_or(|most| value <= most)
}

/// The images of this node.
#[derive(Deserialize, JsonSchema)]
pub struct ListPublic {
    /// Operating system, such as debian.
    os: Option<String>,
    /// Processor, such as amd64.
    architecture: Option<String>,
    /// Words of the name or description.
    search: Option<String>,
    min_price: Option<f64>,
    max_price: Option<f64>,
    /// Of 5.
    min_rating: Option<f64>,
    max_rating: Option<f64>,
    page: Option<Page>,
    /// Images on a page; 20 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
}

#[derive(Serialize, JsonSchema)]
pub struct Images {
    images: Vec<Image>,
    pagination: Pagination,
}

impl Operation for ListPublic {
    const ROUTE: Route = Route::get("/api/v1/images/public")
        .named("listPublicImages")
        .cli("images list");
    type Service = Control;
    type Reply = Images;

    async fn run(self, control: Control, call: Call) -> Result<Images, Fault> {
        let mut images = all(&control, &call).await?;
        let search = self.search.map(|text| text.to_lowercase());
        images.retain(|image| {
            self.os.as_ref().is_none_or(|os| *os == image.os)
                && self
                    .architecture
                    .as_ref()
                    .is_none_or(|wanted| wanted == image.architecture)
                && fits(self.min_price, image.price, self.max_price)
                && fits(self.min_rating, image.average_rating, self.max_rating)
                && search.as_ref().is_none_or(|words| {
                    image.alias.contains(words) || image.description.to_lowercase().contains(words)
                })
        });
        match self.sort_by {
            Some(SortBy::AddedDate) => images.sort_by(|a, b| a.added_date.cmp(&b.added_date)),
            Some(SortBy::Price) => images.sort_by(|a, b| a.price.total_cmp(&b.price)),
            Some(SortBy::Rating) => {
                images.sort_by(|a, b| a.average_rating.total_cmp(&b.average_rating));
            }
            Some(SortBy::Alias) | None => images.sort_by(|a, b| a.alias.cmp(&b.alias)),
        }
        if self.sort_order == Some(Order::Desc) {
            images.reverse();
        }
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 20,
            column: "",
            order: None,
        };
        let (images, pagination) = asked.cut(images);
        Ok(Images { images, pagination })
    }
}

/// One image.
#[derive(Deserialize, JsonSchema)]
pub struct GetPublic {
    id: IdText,
}

impl Operation for GetPublic {
    const ROUTE: Route = Route::get("/api/v1/images/public/{id}")
        .named("getPublicImageDetails")
        .cli("images get");
    type Service = Control;
    type Reply = Image;

    async fn run(self, control: Control, call: Call) -> Result<Image, Fault> {
        one(&control, &call, self.id.0).await
    }
}

/// The images the caller may use: those of this node.
#[derive(Deserialize, JsonSchema)]
pub struct ListMine {
    page: Option<Page>,
    /// Images on a page; 20 where not named.
    limit: Option<Limit>,
    sort_order: Option<Order>,
}

#[derive(Serialize, JsonSchema)]
pub struct MyImages {
    images: Vec<MyImage>,
    pagination: Pagination,
}

impl Operation for ListMine {
    const ROUTE: Route = Route::get("/api/v1/images/user")
        .named("listUserImages")
        .cli("images mine");
    type Service = Control;
    type Reply = MyImages;

    async fn run(self, control: Control, call: Call) -> Result<MyImages, Fault> {
        let mut images = rated(&control, &call).await?;
        images.sort_by(|(a, _), (b, _)| b.added_date.cmp(&a.added_date));
        if self.sort_order == Some(Order::Asc) {
            images.reverse();
        }
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 20,
            column: "",
            order: None,
        };
        let (images, pagination) = asked.cut(images);
        let images = images.into_iter().map(|(image, own)| MyImage {
            image,
            user_rating: own,
            has_rated: own.is_some(),
        });
        Ok(MyImages {
            images: images.collect(),
            pagination,
        })
    }
}

/// The picture of an image, as a `data:` URL.
#[derive(Deserialize, JsonSchema)]
pub struct Icon {
    id: IdText,
}

impl Operation for Icon {
    const ROUTE: Route = Route::get("/api/v1/images/{id}/icon")
        .named("getImageIcon")
        .cli("images icon");
    type Service = Control;
    type Reply = String;

    async fn run(self, control: Control, call: Call) -> Result<String, Fault> {
        Ok(icon(&one(&control, &call, self.id.0).await?.os))
    }
}

/// Have an image among one's own. Whoever may use this node may use all of its images, so there is
/// nothing to bring: the answer is the image.
#[derive(Deserialize, JsonSchema)]
pub struct Import {
    id: IdText,
}

impl Operation for Import {
    const ROUTE: Route = Route::post("/api/v1/images/import/{id}")
        .named("importFreeImage")
        .cli("images import-free")
        .says("The image is there for everybody on this node");
    type Service = Control;
    type Reply = Image;

    async fn run(self, control: Control, call: Call) -> Result<Image, Fault> {
        one(&control, &call, self.id.0).await
    }
}

/// Pay for an image. Those of a node of one's own cost nothing: nothing is paid.
#[derive(Deserialize, JsonSchema)]
pub struct Purchase {
    id: IdText,
}

#[derive(Serialize, JsonSchema)]
pub struct Purchased {
    price_paid: f64,
    remaining_balance: f64,
}

impl Operation for Purchase {
    const ROUTE: Route = Route::post("/api/v1/images/purchase/{id}")
        .named("purchaseImage")
        .cli("images purchase")
        .says("The image costs nothing");
    type Service = Control;
    type Reply = Purchased;

    async fn run(self, control: Control, call: Call) -> Result<Purchased, Fault> {
        let image = one(&control, &call, self.id.0).await?;
        Ok(Purchased {
            price_paid: image.price,
            remaining_balance: 0.0,
        })
    }
}

/// Say what one thinks of an image. Said again, the last word holds.
#[derive(Deserialize, JsonSchema)]
pub struct Rate {
    id: IdText,
    /// From 0 to 5.
    #[schemars(range(min = 0.0, max = 5.0))]
    rating: f64,
}

#[derive(Serialize, JsonSchema)]
pub struct Rated {
    new_rating: f64,
    average_rating: f64,
    rating_count: u32,
}

impl Operation for Rate {
    const ROUTE: Route = Route::post("/api/v1/images/rate/{id}")
        .named("rateImage")
        .cli("images rate")
        .says("Rating kept");
    type Service = Control;
    type Reply = Rated;

    async fn run(self, control: Control, call: Call) -> Result<Rated, Fault> {
        let (user, rating, now) = (Principal::of(&call)?.user.id, self.rating, control.now());
        if !(0.0..=5.0).contains(&rating) {
            return Err(invalid("rating", "must be a number from 0 to 5"));
        }
        let name = one(&control, &call, self.id.0).await?.image_name;
        let all = control
            .store
            .write("rate an image", move |db| {
                ratings::rate(db, user, &name, rating, now)?;
                Ok(ratings::all(db, user)?.remove(&name).unwrap_or_default())
            })
            .await
            .map_err(broken)?;
        Ok(Rated {
            new_rating: rating,
            average_rating: all.average,
            rating_count: all.count,
        })
    }
}
