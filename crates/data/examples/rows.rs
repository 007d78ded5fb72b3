// rows SEED N OUT kind[:noun],kind,...
use prima_data::world::*;
use std::path::Path;
fn main(){
  let a:Vec<String>=std::env::args().collect();
  let mut w=World::open("/work/wt/world/assets/models3d".as_ref()).unwrap();
  if a.get(5).is_some() {
    let t=std::time::Instant::now();
    w=w.with_icons(Path::new("/tmp/npm")).unwrap().with_photos(Path::new("/work/shared/data/grocery_fruit_veg_256.tar")).unwrap().with_tiles(Path::new("/work/shared/data/dcss_tiles_cc0.tar.gz")).unwrap(); println!("{:?}",t.elapsed()); }
  let seed:u64=a[1].parse().unwrap(); let n:usize=a[2].parse().unwrap();
  let kinds:Vec<&str>=a[4].split(',').collect();
  let mut img=image::RgbImage::new((n*256) as u32,(kinds.len()*256) as u32);
  for (row,k) in kinds.iter().enumerate(){ let t=std::time::Instant::now(); for i in 0..n{
    let s=match k.split_once(':'){Some((k,noun))=>w.sample_noun(Kind::from_name(k).unwrap(),noun,seed,i as u64,(256,256)).unwrap(),None=>w.sample_of(Kind::from_name(k).unwrap(),seed,i as u64,(256,256))};
    for y in 0..256{for x in 0..256{let q=(y*256+x)*3;img.put_pixel((i*256+x) as u32,(row*256+y) as u32,image::Rgb([s.rgb[q],s.rgb[q+1],s.rgb[q+2]]));}}
    println!("{row}.{i} {}",s.caption);
  } println!("{:.1} ms",t.elapsed().as_secs_f64()*1e3/n as f64);}
  img.save(&a[3]).unwrap();
}
