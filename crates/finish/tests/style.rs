//! AdaIN on tiny random networks (`scripts/goldens/adain.py`), from files to a picture.

use prima_finish::{Error, Progress, Styling, Stylist};
use prima_picture::Picture;
use prima_tensor::DType;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(name)
}

fn stylist() -> Stylist {
    let [vgg, decoder] = ["vgg_normalised", "decoder"].map(|name| golden(&format!("adain/{name}.safetensors")));
    Stylist::open(&vgg, &decoder, DType::F32).unwrap()
}

fn picture(width: usize, height: usize) -> Picture {
    let bytes = std::fs::read(golden("upscalers/picture.png")).unwrap();
    Picture::decode(&bytes, "picture").unwrap().resized(width, height)
}

#[test]
fn a_picture_keeps_its_size_and_its_style_counts() {
    let (stylist, content) = (stylist(), picture(27, 20));
    let red = Picture {
        width: 16,
        height: 16,
        rgb: (0..256).flat_map(|i| [255, (i % 7) as u8, 0]).collect(),
    };
    let made = |styles: &[(Picture, f64)], strength, keep_colours| {
        let styling = Styling {
            styles,
            strength,
            keep_colours,
        };
        let mut last = None;
        let made = stylist.restyle(&content, &styling, &mut |progress: Progress| {
            last = Some(progress);
            ControlFlow::Continue(())
        });
        assert!(last.is_some_and(|last| last.done <= last.total));
        made.unwrap()
    };
    let red_style = [(red.clone(), 1.0)];
    let whole = made(&red_style, 1.0, false);
    assert_eq!((whole.width, whole.height, whole.rgb.len()), (27, 20, 27 * 20 * 3));
    assert_ne!(whole, made(&red_style, 0.0, false));
    assert_ne!(whole, made(&red_style, 1.0, true));
    // A style mixed with itself is that style.
    assert_eq!(whole, made(&[(red.clone(), 2.0), (red, 3.0)], 1.0, false));
}

#[test]
fn it_can_be_ended_and_sizes_are_bounded() {
    let stylist = stylist();
    let styles = [(picture(16, 16), 1.0)];
    let styling = Styling {
        styles: &styles,
        strength: 1.0,
        keep_colours: false,
    };
    let ended = stylist.restyle(&picture(32, 32), &styling, &mut |_| ControlFlow::Break(()));
    assert!(matches!(ended, Err(Error::Cancelled)));
    let small = stylist.restyle(&picture(8, 32), &styling, &mut |_| ControlFlow::Continue(()));
    assert!(small.unwrap_err().is_usage());
}
