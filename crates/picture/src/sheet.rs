//! Several pictures as one.

use crate::Picture;

/// `pictures`, `columns` to a row from the top left, `gap_px` of white apart. A cell is as large as the largest of them;
/// a smaller picture lies in its middle.
pub fn contact_sheet(pictures: &[Picture], columns: usize, gap_px: usize) -> Picture {
    let columns = columns.clamp(1, pictures.len().max(1));
    let cell_width = pictures.iter().map(|p| p.width).max().unwrap_or(0);
    let cell_height = pictures.iter().map(|p| p.height).max().unwrap_or(0);
    let rows = pictures.len().div_ceil(columns);
    let width = (columns * (cell_width + gap_px)).saturating_sub(gap_px);
    let height = (rows * (cell_height + gap_px)).saturating_sub(gap_px);
    let mut rgb = vec![255; width * height * 3];
    for (i, picture) in pictures.iter().enumerate() {
        let left = i % columns * (cell_width + gap_px) + (cell_width - picture.width) / 2;
        let top = i / columns * (cell_height + gap_px) + (cell_height - picture.height) / 2;
        for (y, row) in picture.rgb.chunks_exact((picture.width * 3).max(1)).enumerate() {
            let start = ((top + y) * width + left) * 3;
            rgb[start..start + row.len()].copy_from_slice(row);
        }
    }
    Picture { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(width: usize, height: usize, value: u8) -> Picture {
        Picture {
            width,
            height,
            rgb: vec![value; width * height * 3],
        }
    }

    #[test]
    fn pictures_land_in_their_cells_whatever_their_sizes() {
        let sheet = contact_sheet(&[flat(2, 2, 0), flat(2, 2, 9), flat(2, 1, 7)], 2, 2);
        assert_eq!((sheet.width, sheet.height), (6, 6));
        let at = |x: usize, y: usize| sheet.rgb[(y * 6 + x) * 3];
        assert_eq!([at(0, 0), at(1, 1), at(4, 0), at(5, 1), at(0, 4)], [0, 0, 9, 9, 7]);
        assert_eq!([at(2, 0), at(0, 2), at(0, 5), at(4, 4)], [255; 4]);
    }

    #[test]
    fn no_pictures_make_an_empty_sheet() {
        assert_eq!(contact_sheet(&[], 8, 2), flat(0, 0, 0));
    }
}
