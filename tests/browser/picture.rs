//! A picture of a page, and how many colours a part of it has.
//! Knows nothing of where the picture comes from.

use std::collections::BTreeSet;
use std::io::Cursor;

use serde::Deserialize;

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Rectangle {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

pub(crate) struct Picture {
    width: usize,
    channels: usize,
    bytes: Vec<u8>,
}

impl Picture {
    pub(crate) fn decode(file: &[u8]) -> Self {
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(frame.bit_depth, png::BitDepth::Eight);
        Self { width: frame.width as usize, channels: frame.color_type.samples(), bytes }
    }

    pub(crate) fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let start = (y * self.width + x) * self.channels;
        self.bytes[start..start + 3].try_into().unwrap()
    }

    /// Returns how many colours there are in a rectangle. Shades that hardly differ are counted once.
    pub(crate) fn colours(&self, Rectangle { x, y, width, height }: Rectangle) -> usize {
        let places = (y..y + height).flat_map(|y| (x..(x + width).min(self.width)).map(move |x| (x, y)));
        let coarse = places.map(|(x, y)| self.pixel(x, y).map(|channel| channel >> 4));
        coarse.collect::<BTreeSet<_>>().len()
    }
}
