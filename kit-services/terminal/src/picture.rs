//! A screen as a picture.
//!
//! The letters are DejaVu Sans Mono; what it does not have (Chinese, Japanese, Korean, most of the
//! rest of Unicode) is drawn from the bitmaps of GNU Unifont. Both are part of the program, so a
//! machine without a single font has pictures too.

use std::collections::HashMap;

use ab_glyph::{Font, FontRef, Glyph, ScaleFont};

/// Smallest and largest letters, in pixels.
pub const FONT_SIZES: std::ops::RangeInclusive<u32> = 6..=72;
/// Most pixels of a picture: 48 MiB while it is drawn, some three times the largest screen.
const MAX_PIXELS: u64 = 16 << 20;
/// Longest side; formats count it in 16 bits.
const MAX_SIDE: u32 = 1 << 15;

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

/// The first sixteen colours, as xterm has them.
const BASE: [Colour; 16] = [
    Colour(0, 0, 0),
    Colour(205, 0, 0),
    Colour(0, 205, 0),
    Colour(205, 205, 0),
    Colour(0, 0, 238),
    Colour(205, 0, 205),
    Colour(0, 205, 205),
    Colour(229, 229, 229),
    Colour(127, 127, 127),
    Colour(255, 0, 0),
    Colour(0, 255, 0),
    Colour(255, 255, 0),
    Colour(92, 92, 255),
    Colour(255, 0, 255),
    Colour(0, 255, 255),
    Colour(255, 255, 255),
];

impl Colour {
    pub const BLACK: Colour = Colour(0, 0, 0);
    pub const WHITE: Colour = Colour(255, 255, 255);

    /// A name (`black` to `white`), `#rrggbb`, `#rgb`, or numbers `R,G,B`; a fourth number, the
    /// opacity, may follow and is not heeded: pictures are opaque.
    pub fn read(text: &str) -> Option<Colour> {
        const NAMES: [(&str, Colour); 8] = [
            ("black", Colour::BLACK),
            ("red", Colour(255, 0, 0)),
            ("green", Colour(0, 128, 0)),
            ("yellow", Colour(255, 255, 0)),
            ("blue", Colour(0, 0, 255)),
            ("magenta", Colour(255, 0, 255)),
            ("cyan", Colour(0, 255, 255)),
            ("white", Colour::WHITE),
        ];
        let named = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, colour)) = named {
            return Some(*colour);
        }
        if let Some(digits) = text.strip_prefix('#') {
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let number = u32::from_str_radix(digits, 16).ok()?;
            let [_, red, green, blue] = number.to_be_bytes();
            return match digits.len() {
                6 => Some(Colour(red, green, blue)),
                3 => {
                    let [high, low] = [(number >> 8) as u8, number as u8];
                    Some(Colour(high * 17, (low >> 4) * 17, (low & 15) * 17))
                }
                _ => None,
            };
        }
        let numbers: Vec<u8> = text
            .split(',')
            .map(|number| number.trim().parse().ok())
            .collect::<Option<_>>()?;
        match numbers[..] {
            [red, green, blue] | [red, green, blue, _] => Some(Colour(red, green, blue)),
            _ => None,
        }
    }

    /// A colour of the 256: the sixteen, a cube of 6 by 6 by 6, and 24 greys.
    fn indexed(index: u8) -> Colour {
        let level = |step: u8| if step == 0 { 0 } else { 55 + step * 40 };
        match index {
            0..=15 => BASE[usize::from(index)],
            16..=231 => {
                let index = index - 16;
                Colour(level(index / 36), level(index / 6 % 6), level(index % 6))
            }
            232.. => {
                let grey = 8 + (index - 232) * 10;
                Colour(grey, grey, grey)
            }
        }
    }

    /// `self` over `below`, as far as it covers it: 0 to 1.
    fn over(self, below: Colour, cover: f32) -> Colour {
        let mix = |above: u8, below: u8| {
            (f32::from(below) + (f32::from(above) - f32::from(below)) * cover).round() as u8
        };
        Colour(
            mix(self.0, below.0),
            mix(self.1, below.1),
            mix(self.2, below.2),
        )
    }
}

/// How a picture is to be.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Of what has no colour of its own.
    pub foreground: Colour,
    pub background: Colour,
    /// Pixels of an em, within [`FONT_SIZES`].
    pub font_size: u32,
}

/// The picture would be larger than is drawn.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a picture of {columns} by {rows} letters of {font_size} pixels would have {width} by {height} pixels; ask for a smaller fontsize"
)]
pub struct TooLarge {
    columns: u16,
    rows: u16,
    font_size: u32,
    width: u32,
    height: u32,
}

/// A picture, three bytes a pixel.
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

impl Picture {
    fn get(&self, x: u32, y: u32) -> Colour {
        let at = self.at(x, y);
        Colour(self.pixels[at], self.pixels[at + 1], self.pixels[at + 2])
    }

    fn at(&self, x: u32, y: u32) -> usize {
        (y as usize * self.width as usize + x as usize) * 3
    }

    fn set(&mut self, x: u32, y: u32, colour: Colour) {
        let at = self.at(x, y);
        self.pixels[at..at + 3].copy_from_slice(&[colour.0, colour.1, colour.2]);
    }

    /// Fill a rectangle, as much of it as there is.
    fn fill(&mut self, area: Area, colour: Colour) {
        for y in area.y..(area.y + area.height).min(self.height) {
            for x in area.x..(area.x + area.width).min(self.width) {
                self.set(x, y, colour);
            }
        }
    }

    fn blend(&mut self, x: i64, y: i64, colour: Colour, cover: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        if x < self.width && y < self.height {
            let below = self.get(x, y);
            self.set(x, y, colour.over(below, cover.clamp(0.0, 1.0)));
        }
    }
}

#[derive(Clone, Copy)]
struct Area {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// Which of the four faces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Face {
    bold: bool,
    italic: bool,
}

impl Face {
    fn font(self) -> FontRef<'static> {
        use dejavu::sans_mono;
        let data = match (self.bold, self.italic) {
            (false, false) => sans_mono::regular(),
            (true, false) => sans_mono::bold(),
            (false, true) => sans_mono::oblique(),
            (true, true) => sans_mono::bold_oblique(),
        };
        FontRef::try_from_slice(data).expect("the fonts of this program are whole")
    }
}

/// How much of each pixel a letter covers, from its cell's corner.
struct Stencil {
    x: i64,
    y: i64,
    width: usize,
    cover: Vec<f32>,
}

/// Letters of one size, drawn once each.
struct Letters {
    scale: ab_glyph::PxScale,
    ascent: f32,
    cell: (u32, u32),
    fonts: HashMap<Face, FontRef<'static>>,
    stencils: HashMap<(Face, char), Option<Stencil>>,
}

impl Letters {
    fn new(font_size: u32) -> Letters {
        let plain = Face {
            bold: false,
            italic: false,
        };
        let font = plain.font();
        let em = font.units_per_em().unwrap_or(2048.0);
        let scale = ab_glyph::PxScale::from(font_size as f32 * font.height_unscaled() / em);
        let scaled = font.as_scaled(scale);
        let width = scaled.h_advance(scaled.glyph_id('M')).round().max(1.0) as u32;
        let height = scaled.height().ceil().max(1.0) as u32;
        Letters {
            scale,
            ascent: scaled.ascent(),
            cell: (width, height),
            fonts: HashMap::from([(plain, font)]),
            stencils: HashMap::new(),
        }
    }

    fn stencil(&mut self, face: Face, letter: char, cells: u32) -> Option<&Stencil> {
        let Letters {
            scale,
            ascent,
            cell,
            fonts,
            stencils,
        } = self;
        stencils
            .entry((face, letter))
            .or_insert_with(|| {
                let font = fonts.entry(face).or_insert_with(|| face.font());
                if is_unseen(letter) {
                    return None;
                }
                let id = font.glyph_id(letter);
                if id.0 == 0 {
                    let size = (cell.0 * cells, cell.1);
                    return Some(bitmap(letter, size).unwrap_or_else(|| frame(size)));
                }
                let glyph: Glyph =
                    id.with_scale_and_position(*scale, ab_glyph::point(0.0, *ascent));
                let outline = font.outline_glyph(glyph)?;
                let bounds = outline.px_bounds();
                let (width, height) = (bounds.width() as usize, bounds.height() as usize);
                let mut cover = vec![0.0; width * height];
                outline.draw(|x, y, covered| {
                    if let Some(pixel) = cover.get_mut(y as usize * width + x as usize) {
                        *pixel = covered;
                    }
                });
                Some(Stencil {
                    x: bounds.min.x as i64,
                    y: bounds.min.y as i64,
                    width,
                    cover,
                })
            })
            .as_ref()
    }
}

/// What joins letters or chooses between their forms, and has none itself.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}')
}

/// What stands for a letter that no font has: an empty frame.
fn frame((width, height): (u32, u32)) -> Stencil {
    let margin = (width / 8).max(1);
    let (left, right) = (margin, width.saturating_sub(margin + 1));
    let (top, bottom) = (height / 5, height - height / 5 - 1);
    let is_line = |x: u32, y: u32| {
        let inside = (left..=right).contains(&x) && (top..=bottom).contains(&y);
        inside && (x == left || x == right || y == top || y == bottom)
    };
    let cover = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| if is_line(x, y) { 1.0 } else { 0.0 })
        .collect();
    Stencil {
        x: 0,
        y: 0,
        width: width as usize,
        cover,
    }
}

/// A letter from the bitmaps, stretched to its cell.
fn bitmap(letter: char, (width, height): (u32, u32)) -> Option<Stencil> {
    /// Rows of every bitmap.
    const ROWS: u32 = 16;
    let glyph = unifont::get_glyph(letter)?;
    let columns = u32::try_from(glyph.get_width()).unwrap_or(ROWS);
    // Letters stay as wide as they are high; a narrow one does not fill a wide cell.
    let width = width.min(height * columns / ROWS).max(1);
    let mut cover = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            cover.push(covered(glyph, (x, width, columns), (y, height, ROWS)));
        }
    }
    Some(Stencil {
        x: 0,
        y: 0,
        width: width as usize,
        cover,
    })
}

/// How much of a pixel the dots of a bitmap cover; each side is (at, of, dots).
fn covered(glyph: &unifont::Glyph, x: (u32, u32, u32), y: (u32, u32, u32)) -> f32 {
    /// Looks per side and pixel; more are not seen.
    const LOOKS: u32 = 3;
    let dot = |(at, of, dots): (u32, u32, u32), look: u32| {
        ((at * LOOKS + look) * dots / (of * LOOKS)) as usize
    };
    let seen = (0..LOOKS)
        .flat_map(|down| (0..LOOKS).map(move |along| (along, down)))
        .filter(|(along, down)| glyph.get_pixel(dot(x, *along), dot(y, *down)))
        .count();
    seen as f32 / (LOOKS * LOOKS) as f32
}

/// The colours of a cell: letter and ground.
fn colours(cell: &vt100::Cell, style: &Style, is_cursor: bool) -> (Colour, Colour) {
    let colour = |colour: vt100::Color, usual: Colour, bright: bool| match colour {
        vt100::Color::Default => usual,
        // Bold letters of the first eight colours are bright, as terminals have it.
        vt100::Color::Idx(index) if bright && index < 8 => Colour::indexed(index + 8),
        vt100::Color::Idx(index) => Colour::indexed(index),
        vt100::Color::Rgb(red, green, blue) => Colour(red, green, blue),
    };
    let mut letter = colour(cell.fgcolor(), style.foreground, cell.bold());
    let mut ground = colour(cell.bgcolor(), style.background, false);
    if cell.inverse() != is_cursor {
        std::mem::swap(&mut letter, &mut ground);
    }
    if cell.dim() {
        const DIMMED: f32 = 0.5;
        letter = letter.over(ground, DIMMED);
    }
    (letter, ground)
}

/// Draw what is on a screen, with its cursor where one is shown.
pub fn draw(screen: &vt100::Screen, style: &Style) -> Result<Picture, TooLarge> {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let mut letters = Letters::new(style.font_size);
    let (wide, high) = letters.cell;
    let (width, height) = (wide * u32::from(columns), high * u32::from(rows));
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(TooLarge {
            columns,
            rows,
            font_size: style.font_size,
            width,
            height,
        });
    }
    let mut picture = Picture {
        width,
        height,
        pixels: vec![0; width as usize * height as usize * 3],
    };
    let cursor =
        (!screen.hide_cursor() && screen.scrollback() == 0).then(|| screen.cursor_position());
    let cells = || (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)));
    let area = |row: u16, column: u16, cells: u32| Area {
        x: u32::from(column) * wide,
        y: u32::from(row) * high,
        width: wide * cells,
        height: high,
    };
    // The grounds first: a letter may reach into the cell beside it.
    for (row, column) in cells() {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        if cell.is_wide_continuation() {
            continue;
        }
        let (_, ground) = colours(cell, style, cursor == Some((row, column)));
        picture.fill(area(row, column, 1 + u32::from(cell.is_wide())), ground);
    }
    for (row, column) in cells() {
        let Some(cell) = screen.cell(row, column).filter(|cell| cell.has_contents()) else {
            continue;
        };
        let width = 1 + u32::from(cell.is_wide());
        let place = area(row, column, width);
        let (colour, _) = colours(cell, style, cursor == Some((row, column)));
        let face = Face {
            bold: cell.bold(),
            italic: cell.italic(),
        };
        for letter in cell.contents().chars() {
            let Some(stencil) = letters.stencil(face, letter, width) else {
                continue;
            };
            for (at, cover) in stencil.cover.iter().enumerate() {
                if *cover > 0.0 {
                    let (x, y) = ((at % stencil.width) as i64, (at / stencil.width) as i64);
                    picture.blend(
                        i64::from(place.x) + stencil.x + x,
                        i64::from(place.y) + stencil.y + y,
                        colour,
                        *cover,
                    );
                }
            }
        }
        if cell.underline() {
            let thick = (style.font_size / 14).max(1);
            let y = (place.y + letters.ascent.round() as u32 + thick)
                .min(place.y + high.saturating_sub(thick));
            picture.fill(
                Area {
                    y,
                    height: thick,
                    ..place
                },
                colour,
            );
        }
    }
    Ok(picture)
}

/// How a picture is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Png,
    #[serde(alias = "jpg")]
    Jpeg,
    Gif,
}

/// The picture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Encode {
    #[error("could not write the picture as PNG")]
    Png(#[from] png::EncodingError),
    #[error("could not write the picture as JPEG")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("could not write the picture as GIF")]
    Gif(#[from] gif::EncodingError),
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Gif => "image/gif",
        }
    }

    /// What names of files end with.
    pub fn ending(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Gif => "gif",
        }
    }

    pub fn encode(self, picture: &Picture) -> Result<Vec<u8>, Encode> {
        /// Letters show the artefacts of less.
        const JPEG_QUALITY: u8 = 90;
        /// Of 1, best, to 30, fastest.
        const GIF_SPEED: i32 = 20;
        let side = |side: u32| u16::try_from(side).expect("it is below MAX_SIDE");
        let mut bytes = Vec::new();
        match self {
            Format::Png => {
                let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
                encoder.set_color(png::ColorType::Rgb);
                encoder.set_depth(png::BitDepth::Eight);
                encoder.set_compression(png::Compression::Fast);
                let mut writer = encoder.write_header()?;
                writer.write_image_data(&picture.pixels)?;
                writer.finish()?;
            }
            Format::Jpeg => jpeg_encoder::Encoder::new(&mut bytes, JPEG_QUALITY).encode(
                &picture.pixels,
                side(picture.width),
                side(picture.height),
                jpeg_encoder::ColorType::Rgb,
            )?,
            Format::Gif => {
                let (width, height) = (side(picture.width), side(picture.height));
                let frame = gif::Frame::from_rgb_speed(width, height, &picture.pixels, GIF_SPEED);
                let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[])?;
                encoder.write_frame(&frame)?;
                drop(encoder);
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty::Size;
    use crate::screen::Screen;

    const STYLE: Style = Style {
        foreground: Colour::WHITE,
        background: Colour::BLACK,
        font_size: 20,
    };

    fn drawn(output: &str) -> (Picture, (u32, u32)) {
        let size = Size {
            rows: 3,
            columns: 12,
        };
        let screen = Screen::new(size, output.as_bytes()).look().clone();
        (draw(&screen, &STYLE).unwrap(), Letters::new(20).cell)
    }

    /// The colours of a cell's pixels.
    fn cell(drawn: &(Picture, (u32, u32)), row: u32, column: u32) -> Vec<Colour> {
        let (picture, (wide, high)) = drawn;
        (row * high..(row + 1) * high)
            .flat_map(|y| (column * wide..(column + 1) * wide).map(move |x| (x, y)))
            .map(|(x, y)| picture.get(x, y))
            .collect()
    }

    fn has(cell: &[Colour], colour: Colour) -> bool {
        cell.contains(&colour)
    }

    #[test]
    fn letters_have_their_shapes_colours_and_grounds() {
        let drawn = drawn(
            "\x1b[?25ln \x1b[31mr\x1b[0m\x1b[44mb\x1b[0m\x1b[7mi\x1b[0m\x1b[38;2;1;200;3mg\x1b[0m\x1b[4mu\x1b[0m",
        );
        assert_eq!(drawn.0.width, 12 * drawn.1.0);
        assert_eq!(drawn.0.height, 3 * drawn.1.1);
        let look = |column| cell(&drawn, 0, column);
        assert!(has(&look(0), Colour::WHITE) && has(&look(0), Colour::BLACK));
        assert!(look(1).iter().all(|pixel| *pixel == Colour::BLACK));
        assert!(has(&look(2), Colour(205, 0, 0)) && !has(&look(2), Colour::WHITE));
        assert!(has(&look(3), Colour(0, 0, 238)) && has(&look(3), Colour::WHITE));
        assert!(has(&look(4), Colour::BLACK));
        assert!(
            look(4)
                .iter()
                .filter(|pixel| **pixel == Colour::WHITE)
                .count()
                > look(4).len() / 2
        );
        assert!(has(&look(5), Colour(1, 200, 3)));
        let underlined = look(6);
        let rows: Vec<_> = underlined.chunks(drawn.1.0 as usize).collect();
        assert!(
            rows.iter()
                .any(|row| row.iter().all(|pixel| *pixel == Colour::WHITE)),
            "a line reaches from side to side"
        );
    }

    #[test]
    fn bold_letters_are_heavier_and_wide_ones_take_two_cells() {
        let ink = |cell: Vec<Colour>| cell.iter().map(|pixel| u32::from(pixel.0)).sum::<u32>();
        let drawn = drawn("\x1b[?25lx\x1b[1mx\x1b[0m\x1b[2mx\x1b[0m 漢字é");
        let (plain, bold, dim) = (
            ink(cell(&drawn, 0, 0)),
            ink(cell(&drawn, 0, 1)),
            ink(cell(&drawn, 0, 2)),
        );
        assert!(bold > plain && dim < plain, "{bold} {plain} {dim}");
        for column in 4..8 {
            assert!(has(&cell(&drawn, 0, column), Colour::WHITE), "{column}");
        }
        assert!(ink(cell(&drawn, 0, 8)) > 0);
        // A letter that no font has is seen to be one.
        let drawn = self::drawn("\x1b[?25l\u{1f600}a\u{200d}");
        assert!(ink(cell(&drawn, 0, 0)) > 0 && ink(cell(&drawn, 0, 1)) > 0);
    }

    #[test]
    fn the_cursor_is_a_block_where_it_is_shown() {
        let solid = |text| {
            let drawn = drawn(text);
            cell(&drawn, 0, 2)
                .iter()
                .all(|pixel| *pixel == Colour::WHITE)
        };
        assert!(solid("ab"));
        assert!(!solid("ab\x1b[?25l"));
    }

    #[test]
    fn every_format_says_what_it_is() {
        let (picture, _) = drawn("hello");
        let starts = |format: Format, magic: &[u8]| {
            let bytes = format.encode(&picture).unwrap();
            assert!(bytes.starts_with(magic), "{format:?}");
        };
        starts(Format::Png, b"\x89PNG\r\n\x1a\n");
        starts(Format::Jpeg, b"\xff\xd8\xff");
        starts(Format::Gif, b"GIF89a");
        let bytes = Format::Png.encode(&picture).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut read = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(read, picture.pixels);
    }

    #[test]
    fn a_picture_beyond_all_measure_is_refused_before_it_is_drawn() {
        let size = Size {
            rows: 1000,
            columns: 1000,
        };
        let screen = Screen::new(size, b"").look().clone();
        let style = Style {
            font_size: 72,
            ..STYLE
        };
        assert!(draw(&screen, &style).is_err());
    }

    #[test]
    fn colours_are_read_in_all_their_spellings() {
        for (text, want) in [
            ("red", Some(Colour(255, 0, 0))),
            ("White", Some(Colour::WHITE)),
            ("#0f8", Some(Colour(0, 255, 136))),
            ("#102030", Some(Colour(16, 32, 48))),
            ("1,2,3", Some(Colour(1, 2, 3))),
            ("1, 2, 3, 4", Some(Colour(1, 2, 3))),
            ("256,0,0", None),
            ("1,2", None),
            ("#+12345", None),
            ("#12345", None),
            ("", None),
            ("plaid", None),
        ] {
            assert_eq!(Colour::read(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_shown_can_be_drawn(
            output in "(\\x1b\\[[0-9;?]{0,12}[A-Za-z]|[ -~\r\n]|\\PC|\u{300}|漢|\u{1f600}){0,80}",
            (rows, columns) in (1..12_u16, 2..40_u16),
            font_size in FONT_SIZES,
        ) {
            let screen = Screen::new(Size { rows, columns }, output.as_bytes()).look().clone();
            if let Ok(picture) = draw(&screen, &Style { font_size, ..STYLE }) {
                let size = picture.width as usize * picture.height as usize * 3;
                proptest::prop_assert_eq!(picture.pixels.len(), size);
            }
        }

        #[test]
        fn no_text_breaks_the_reading_of_colours(text in "[#0-9a-fA-F,+é -]{0,14}") {
            Colour::read(&text);
        }
    }
}
