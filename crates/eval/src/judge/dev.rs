use super::labels::{Labels, Shown};
use super::renders::Example;
use super::training::Lessons;
use crate::features::Maps;
use half::f16;
use prima_data::world::Relation;
use serde_json::{Value, json};
use std::io::{Read, Write};

fn put(e: &Example, out: &mut impl Write) {
    let l = &e.labels;
    let things: Vec<Value> = l.things.iter().map(|t| json!([t.noun, t.names, t.colour, t.painted, t.count, t.centre])).collect();
    let rel = l.relation.map(|r| Relation::ALL.iter().position(|x| *x == r).unwrap());
    let v = json!([things, rel, l.side, l.count, l.place, l.time, l.weather, l.style, l.cells]).to_string();
    out.write_all(&(v.len() as u32).to_le_bytes()).unwrap();
    out.write_all(v.as_bytes()).unwrap();
    for part in [&e.maps.fine, &e.maps.coarse, &e.maps.pooled] {
        out.write_all(&(part.len() as u32).to_le_bytes()).unwrap();
        let bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.write_all(&bytes).unwrap();
    }
}

fn get(inp: &mut impl Read) -> Option<Example> {
    let mut n = [0u8; 4];
    inp.read_exact(&mut n).ok()?;
    let mut s = vec![0u8; u32::from_le_bytes(n) as usize];
    inp.read_exact(&mut s).unwrap();
    let v: Value = serde_json::from_slice(&s).unwrap();
    let f = |v: &Value| serde_json::from_value::<Option<usize>>(v.clone()).unwrap();
    let things = v[0].as_array().unwrap().iter().map(|t| Shown {
        noun: f(&t[0]),
        names: serde_json::from_value(t[1].clone()).unwrap(),
        colour: f(&t[2]),
        painted: t[3].as_bool().unwrap(),
        count: f(&t[4]).unwrap(),
        centre: serde_json::from_value(t[5].clone()).unwrap(),
    }).collect();
    let labels = Labels {
        things, relation: f(&v[1]).map(|i| Relation::ALL[i]), side: f(&v[2]), count: f(&v[3]), place: f(&v[4]), time: f(&v[5]),
        weather: f(&v[6]), style: f(&v[7]), cells: serde_json::from_value(v[8].clone()).unwrap(),
    };
    let mut part = || {
        let mut n = [0u8; 4];
        inp.read_exact(&mut n).unwrap();
        let mut s = vec![0u8; u32::from_le_bytes(n) as usize * 2];
        inp.read_exact(&mut s).unwrap();
        s.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect::<Vec<_>>()
    };
    Some(Example { maps: Maps { fine: part(), coarse: part(), pooled: part() }, labels })
}

pub fn dump(world: &prima_data::world::World, net: &crate::FeatureNet, n: usize, path: &str) {
    use super::renders::{HELD_OUT_SEED, LEARNT_SEED, examples};
    let answers = super::Answers::of(world);
    let mut outs = ["learnt", "held"].map(|name| std::io::BufWriter::new(std::fs::File::create(format!("{path}.{name}")).unwrap()));
    let t = std::time::Instant::now();
    for part in 0..n / 200 {
        for (k, (seed, size, deg)) in [(LEARNT_SEED, 200, true), (HELD_OUT_SEED, 40, false)].into_iter().enumerate() {
            let list = examples(world, &answers, net, seed, part * size..(part + 1) * size, deg, &mut |_, _| {}).unwrap();
            for e in &list { put(e, &mut outs[k]); }
            outs[k].flush().unwrap();
        }
        eprintln!("{} {:?}", (part + 1) * 200, t.elapsed());
    }
}

pub fn load(world: &prima_data::world::World, path: &str) -> Lessons {
    let read = |name: &str| {
        let mut inp = std::io::BufReader::new(std::fs::File::open(format!("{path}.{name}")).unwrap());
        let mut v = Vec::new();
        while let Some(e) = get(&mut inp) { v.push(e); }
        v
    };
    Lessons { answers: super::Answers::of(world), learnt: read("learnt"), held_out: read("held") }
}
