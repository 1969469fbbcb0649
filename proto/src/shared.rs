//! The answers of a stream of operations as a sidecar makes them: what many watchers are told is encoded once.
//!
//! On the wire they are [`crate::v1::ResultBatch`].

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::v1;

tonic::include_proto!("shared/coterie.v1");

/// The numbers of the fields of the messages that this stands for.
const RESULTS: u32 = 1;
const ID: u32 = 1;
const EVENT: u32 = 12;

/// See [`v1::ResultBatch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultBatch {
    /// In their order.
    pub results: Vec<Result>,
}

/// See [`v1::Result`].
#[derive(Clone, Debug, PartialEq)]
pub enum Result {
    /// As it is.
    Plain(v1::Result),
    /// An event of a watch: an encoded [`v1::MapEvent`].
    Event {
        /// Of the watch.
        id: u64,
        /// Shared by all who are told.
        event: Bytes,
    },
}

impl Result {
    fn encoded_len(&self) -> usize {
        match self {
            Self::Plain(result) => result.encoded_len(),
            Self::Event { id: 0, event } => encoding::bytes::encoded_len(EVENT, event),
            Self::Event { id, event } => {
                encoding::uint64::encoded_len(ID, id) + encoding::bytes::encoded_len(EVENT, event)
            }
        }
    }

    fn encode(&self, buf: &mut impl BufMut) {
        match self {
            Self::Plain(result) => result.encode_raw(buf),
            Self::Event { id, event } => {
                if *id != 0 {
                    encoding::uint64::encode(ID, id, buf);
                }
                encoding::bytes::encode(EVENT, event, buf);
            }
        }
    }
}

impl Message for ResultBatch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for result in &self.results {
            encoding::encode_key(RESULTS, WireType::LengthDelimited, buf);
            encoding::encode_varint(result.encoded_len() as u64, buf);
            result.encode(buf);
        }
    }

    /// Nobody sends this to a sidecar: what comes is passed over.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> std::result::Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        let one = |result: &Result| {
            let len = result.encoded_len();
            encoding::key_len(RESULTS) + encoding::encoded_len_varint(len as u64) + len
        };
        self.results.iter().map(one).sum()
    }

    fn clear(&mut self) {
        self.results.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire_it_is_the_batch_that_it_stands_for() {
        let event = |revision| {
            let entry = v1::Entry { key: "k".to_owned(), value: vec![7; 300].into(), revision };
            let kind = Some(v1::map_event::Kind::Put(entry));
            v1::MapEvent { id: format!("{revision}.0.9f3ac07e"), revision, kind }
        };
        let put = v1::result::Response::Put(v1::PutResponse { revision: 9, previous_revision: 3 });
        let plain = v1::Result { id: 5, response: Some(put) };
        let told = |id, revision| v1::Result { id, response: Some(v1::result::Response::Event(event(revision))) };
        let expected = v1::ResultBatch { results: vec![told(0, 1), plain.clone(), told(1 << 40, u64::MAX)] };
        let shared = |id, revision: u64| Result::Event { id, event: event(revision).encode_to_vec().into() };
        let results = vec![shared(0, 1), Result::Plain(plain), shared(1 << 40, u64::MAX)];
        let encoded = ResultBatch { results }.encode_to_vec();
        assert_eq!(v1::ResultBatch::decode(&*encoded), Ok(expected.clone()));
        assert_eq!(encoded, expected.encode_to_vec());
    }
}
