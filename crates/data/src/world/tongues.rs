//! Captions in seven languages beside English: a name, a colour, a place, an hour and a weather, joined by commas, so that
//! nothing has to agree with a noun's gender.

use super::facts::{Facts, View};
use super::light::{Time, Weather};
use super::place::Place;
use super::room::RoomKind;
use crate::languages;
use crate::random::Random;

/// Codes, in the order of the tables below.
pub const CODES: [&str; 7] = ["de", "es", "fr", "it", "pt", "ja", "zh"];

/// A landscape's name in each language.
fn place(place: Place) -> Option<[&'static str; 7]> {
    nature(place).or_else(|| town(place)).or_else(|| room(place))
}

/// What nobody built.
fn nature(place: Place) -> Option<[&'static str; 7]> {
    Some(match place {
        Place::Lake | Place::PineLake => [
            "Bergsee",
            "lago de montaña",
            "lac de montagne",
            "lago di montagna",
            "lago de montanha",
            "山の湖",
            "高山湖泊",
        ],
        Place::SnowyMountains => [
            "verschneite Berge",
            "montañas nevadas",
            "montagnes enneigées",
            "montagne innevate",
            "montanhas nevadas",
            "雪山",
            "雪山",
        ],
        Place::Hills => [
            "grüne Hügel",
            "colinas verdes",
            "collines vertes",
            "colline verdi",
            "colinas verdes",
            "緑の丘",
            "绿色的山丘",
        ],
        Place::Forest => ["Wald", "bosque", "forêt", "foresta", "floresta", "森", "森林"],
        Place::Desert => ["Wüste", "desierto", "désert", "deserto", "deserto", "砂漠", "沙漠"],
        Place::Sea => ["Meer", "mar", "mer", "mare", "mar", "海", "大海"],
        Place::Beach => ["Strand", "playa", "plage", "spiaggia", "praia", "砂浜", "沙滩"],
        Place::FlowerField => [
            "Blumenfeld",
            "campo de flores",
            "champ de fleurs",
            "campo di fiori",
            "campo de flores",
            "花畑",
            "花田",
        ],
        Place::Space => [
            "Weltraum",
            "espacio exterior",
            "espace",
            "spazio",
            "espaço sideral",
            "宇宙",
            "太空",
        ],
        Place::Moon => [
            "Mondoberfläche",
            "superficie de la luna",
            "surface de la lune",
            "superficie della luna",
            "superfície da lua",
            "月面",
            "月球表面",
        ],
        Place::UnderWater => [
            "unter Wasser",
            "bajo el agua",
            "sous l'eau",
            "sott'acqua",
            "debaixo d'água",
            "水中",
            "水下",
        ],
        Place::Aurora => [
            "Nordlichter",
            "aurora boreal",
            "aurore boréale",
            "aurora boreale",
            "aurora boreal",
            "オーロラ",
            "北极光",
        ],
        _ => return None,
    })
}

/// Where people live.
fn town(place: Place) -> Option<[&'static str; 7]> {
    Some(match place {
        Place::Skyline => [
            "Skyline einer Stadt",
            "horizonte de la ciudad",
            "gratte-ciels d'une ville",
            "skyline di una città",
            "horizonte da cidade",
            "都会の高層ビル群",
            "城市天际线",
        ],
        Place::Rooftop => [
            "Dach über der Stadt",
            "azotea",
            "toit d'immeuble",
            "tetto di un palazzo",
            "terraço",
            "屋上",
            "屋顶",
        ],
        Place::Street => ["Straße", "calle", "rue", "strada", "rua", "通り", "街道"],
        Place::Castle => [
            "Burg auf einem Hügel",
            "castillo en una colina",
            "château sur une colline",
            "castello su una collina",
            "castelo em uma colina",
            "丘の上の城",
            "山丘上的城堡",
        ],
        Place::Village => ["Dorf", "pueblo", "village", "villaggio", "aldeia", "村", "村庄"],
        _ => return None,
    })
}

/// Rooms, and the table in them.
fn room(place: Place) -> Option<[&'static str; 7]> {
    Some(match place {
        Place::Room(RoomKind::Living) => [
            "Wohnzimmer",
            "sala de estar",
            "salon",
            "soggiorno",
            "sala de estar",
            "リビングルーム",
            "客厅",
        ],
        Place::Room(RoomKind::Bedroom) => [
            "Schlafzimmer",
            "dormitorio",
            "chambre à coucher",
            "camera da letto",
            "quarto",
            "寝室",
            "卧室",
        ],
        Place::Room(RoomKind::Kitchen) => ["Küche", "cocina", "cuisine", "cucina", "cozinha", "台所", "厨房"],
        Place::Room(RoomKind::Bathroom) => [
            "Badezimmer",
            "cuarto de baño",
            "salle de bain",
            "bagno",
            "banheiro",
            "浴室",
            "浴室",
        ],
        Place::Room(RoomKind::Office) => [
            "Büro",
            "oficina",
            "bureau",
            "ufficio",
            "escritório",
            "オフィス",
            "办公室",
        ],
        Place::Room(RoomKind::Dining) => [
            "Esszimmer",
            "comedor",
            "salle à manger",
            "sala da pranzo",
            "sala de jantar",
            "ダイニングルーム",
            "餐厅",
        ],
        Place::Room(RoomKind::Plain) => ["Zimmer", "habitación", "pièce", "stanza", "cômodo", "部屋", "房间"],
        Place::Table => [
            "auf einem Holztisch",
            "sobre una mesa de madera",
            "sur une table en bois",
            "su un tavolo di legno",
            "em uma mesa de madeira",
            "木のテーブルの上",
            "在木桌上",
        ],
        _ => return None,
    })
}

fn time(time: Time) -> [&'static str; 7] {
    match time {
        Time::Dawn => [
            "im Morgengrauen",
            "al alba",
            "à l'aube",
            "all'alba",
            "de madrugada",
            "夜明け",
            "黎明",
        ],
        Time::Sunrise => [
            "bei Sonnenaufgang",
            "al amanecer",
            "au lever du soleil",
            "al sorgere del sole",
            "ao nascer do sol",
            "日の出",
            "日出",
        ],
        Time::Day => ["am Tag", "de día", "de jour", "di giorno", "de dia", "昼間", "白天"],
        Time::Sunset => [
            "bei Sonnenuntergang",
            "al atardecer",
            "au coucher du soleil",
            "al tramonto",
            "ao pôr do sol",
            "夕焼け",
            "日落",
        ],
        Time::Night => ["bei Nacht", "de noche", "la nuit", "di notte", "à noite", "夜", "夜晚"],
    }
}

fn weather(weather: Weather) -> Option<[&'static str; 7]> {
    Some(match weather {
        Weather::Clear => return None,
        Weather::Cloudy => [
            "bewölkter Himmel",
            "cielo nublado",
            "ciel nuageux",
            "cielo nuvoloso",
            "céu nublado",
            "曇り空",
            "多云",
        ],
        Weather::Fog => [
            "im Nebel",
            "con niebla",
            "dans le brouillard",
            "nella nebbia",
            "na neblina",
            "霧の中",
            "雾中",
        ],
        Weather::Rain => [
            "im Regen",
            "bajo la lluvia",
            "sous la pluie",
            "sotto la pioggia",
            "na chuva",
            "雨の中",
            "雨中",
        ],
        Weather::Snow => [
            "bei Schneefall",
            "nevando",
            "sous la neige",
            "sotto la neve",
            "nevando",
            "雪が降る",
            "下雪",
        ],
    })
}

/// The caption in another language, for pictures of one thing or a landscape; `None` where a word is not known.
pub(super) fn write(facts: &Facts, random: &mut Random) -> Option<String> {
    let at = random.below(CODES.len());
    let code = CODES[at];
    let joint = match code {
        "ja" => "、",
        "zh" => "，",
        _ => ", ",
    };
    let mut parts: Vec<String> = Vec::new();
    match facts.things.as_slice() {
        [] => parts.push(place(facts.place)?[at].to_owned()),
        [thing] if thing.count == 1 && !thing.several && !matches!(thing.view, Some(View::Side | View::Back)) => {
            let colour = thing.colour.filter(|_| thing.painted);
            parts.push(languages::phrase(
                code,
                thing.names.get(code)?,
                colour,
                facts.background,
                random,
            )?);
            if let Some(place) = place(facts.place) {
                parts.push(place[at].to_owned());
            }
        }
        _ => return None,
    }
    if let Some(hour) = facts.time.filter(|t| *t != Time::Day || random.chance(0.3)) {
        parts.push(time(hour)[at].to_owned());
    }
    if let Some(weather) = facts.weather.and_then(weather) {
        parts.push(weather[at].to_owned());
    }
    Some(parts.join(joint))
}
