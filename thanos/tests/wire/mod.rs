//! Thanos' messages written and read by hand, from the field numbers it publishes: nothing here is shared with the
//! server.

use std::collections::BTreeMap;

/// One field of a message: its number, and a number or bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

pub(crate) fn varint(mut value: u64, into: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            return into.push(low);
        }
        into.push(low | 0x80);
    }
}

/// A message under construction.
#[derive(Clone, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    #[must_use]
    pub(crate) fn number(mut self, field: u64, value: i64) -> Self {
        varint(field << 3, &mut self.0);
        varint(value.cast_unsigned(), &mut self.0);
        self
    }

    #[must_use]
    pub(crate) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        varint(field << 3 | 2, &mut self.0);
        varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
        self
    }

    #[must_use]
    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// A matcher in the field where the message has them.
    #[must_use]
    pub(crate) fn matcher(self, field: u64, kind: i64, name: &str, value: &str) -> Self {
        self.bytes(field, &Self::default().number(1, kind).text(2, name).text(3, value).0)
    }
}

/// A `SeriesRequest` for all of a range.
pub(crate) fn series_request(min: i64, max: i64) -> Message {
    Message::default().number(1, min).number(2, max)
}

pub(crate) fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a number goes on");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number that does not end");
}

/// The fields of a message, in order.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes);
        let value = match key & 7 {
            0 => Field::Number(read_varint(&mut bytes)),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)).unwrap();
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, value));
    }
    all
}

impl Field {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} where bytes belong"),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    pub(crate) fn number(&self) -> i64 {
        match self {
            Self::Number(number) => number.cast_signed(),
            Self::Bytes(bytes) => panic!("{bytes:?} where a number belongs"),
        }
    }
}

/// A chunk as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) kind: i64,
    pub(crate) data: Vec<u8>,
}

/// A series, or a part of it, as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) chunks: Vec<Chunk>,
}

/// All texts of a field.
#[allow(dead_code, reason = "not every test that includes this asks for texts")]
pub(crate) fn texts(message: &[u8], field: u64) -> Vec<String> {
    fields(message).iter().filter(|(number, _)| *number == field).map(|(_, value)| value.text()).collect()
}

pub(crate) fn labels(message: &[u8]) -> Vec<(String, String)> {
    let label = |message: &[u8]| {
        let all: BTreeMap<u64, Field> = fields(message).into_iter().collect();
        (all[&1].text(), all.get(&2).map_or_else(String::new, Field::text))
    };
    fields(message).iter().filter(|(number, _)| *number == 1).map(|(_, value)| label(value.bytes())).collect()
}

fn chunk(message: &[u8]) -> Chunk {
    let all: BTreeMap<u64, Field> = fields(message).into_iter().collect();
    assert!(all.keys().all(|key| [1, 2, 3].contains(key)), "only raw samples are expected");
    let raw: BTreeMap<u64, Field> = fields(all[&3].bytes()).into_iter().collect();
    let number = |all: &BTreeMap<u64, Field>, key: u64| all.get(&key).map_or(0, Field::number);
    Chunk {
        min: number(&all, 1),
        max: number(&all, 2),
        kind: number(&raw, 1),
        data: raw[&2].bytes().to_vec(),
    }
}

fn series(message: &[u8]) -> Series {
    let chunks = fields(message).iter().filter(|(key, _)| *key == 2).map(|(_, v)| chunk(v.bytes())).collect();
    Series { labels: labels(message), chunks }
}

/// What frames of an answer say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) series: Vec<Series>,
    pub(crate) warnings: Vec<String>,
    /// How many series each frame had.
    pub(crate) in_frames: Vec<usize>,
}

/// Reads `SeriesResponse` frames.
pub(crate) fn answer(frames: &[Vec<u8>]) -> Answer {
    let mut answer = Answer::default();
    for frame in frames {
        let all = fields(frame);
        let [(key, value)] = &all[..] else { panic!("a frame has one result: {all:?}") };
        let before = answer.series.len();
        match key {
            1 => answer.series.push(series(value.bytes())),
            2 => answer.warnings.push(value.text()),
            4 => {
                for (key, one) in fields(value.bytes()) {
                    assert_eq!(key, 1);
                    answer.series.push(series(one.bytes()));
                }
            }
            other => panic!("an unknown result {other}"),
        }
        answer.in_frames.push(answer.series.len() - before);
    }
    answer
}

/// A message in gRPC's frame.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut all = vec![0];
    all.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    all.extend_from_slice(message);
    all
}

/// The messages of a body of gRPC's frames.
pub(crate) fn unframed(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        assert_eq!(head[0], 0, "not compressed");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (message, rest) = rest.split_at(usize::try_from(length).unwrap());
        all.push(message.to_vec());
        body = rest;
    }
    assert!(body.is_empty(), "a frame is cut off");
    all
}
