'use strict';
/*
 * What @stellar/stellar-base, the codec under the foreign peer, reads in survey messages and
 * topologies. Each line of stdin is {"type": name in xdr, "xdr": base64}; the line on stdout that
 * answers it has all "fields" as plain JSON (bytes in hex, 64-bit numbers as text) and, of a
 * message, "is_signed": whether the node that has to sign it did.
 */
const readline = require('node:readline');
const { Keypair, xdr } = require('@stellar/stellar-base');

function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof xdr.Uint64) return value.toString();
  if (value._switch !== undefined) return plain(value.value()); // a union: what it holds
  if (value._attributes !== undefined) {
    const fields = Object.entries(value._attributes);
    return Object.fromEntries(fields.map(([name, field]) => [name, plain(field)]));
  }
  return value.name ?? value; // of an enum, its name
}

function isSigned(message) {
  const [signature, inner] = Object.values(message.value()._attributes);
  const said = inner._attributes.request ?? inner._attributes.response ?? inner;
  const { surveyorId, surveyorPeerId, surveyedPeerId } = said._attributes;
  const isAnswer = message.switch().name === 'timeSlicedSurveyResponse';
  const signer = isAnswer ? surveyedPeerId : surveyorPeerId ?? surveyorId;
  const key = new Keypair({ type: 'ed25519', publicKey: signer.ed25519() });
  return key.verify(inner.toXDR(), signature);
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { type, xdr: body } = JSON.parse(line);
  const value = xdr[type].fromXDR(body, 'base64');
  const answer = { fields: plain(value) };
  if (type === 'StellarMessage') answer.is_signed = isSigned(value);
  process.stdout.write(JSON.stringify(answer) + '\n');
});
