// A sound of a kind that the server does not read (M4A, WebM) -> a WAV, by what the browser decodes. Used by sounds.js.

/** Samples a second, of one channel: models hear no more. */
export const RATE = 16000;
const MOST = 32767, HEAD_BYTES = 44;

/** What a file of so many bytes of samples begins with. */
function head(size) {
  const view = new DataView(new ArrayBuffer(HEAD_BYTES));
  const words = [[0, "RIFF"], [8, "WAVE"], [12, "fmt "], [36, "data"]];
  for (const [at, word] of words) [...word].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  view.setUint32(4, HEAD_BYTES - 8 + size, true);
  view.setUint32(16, 16, true); // bytes of what follows: whole numbers, one channel, the rate, bytes a second and a sample, bits
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  view.setUint32(40, size, true);
  return view;
}

/** The mean of a sound's channels as a WAV of 16 bits; null where this browser cannot read the file. */
export async function asWav(file) {
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    return null;
  }
  const channels = Array.from({ length: sound.numberOfChannels }, (_, place) => sound.getChannelData(place));
  const samples = new DataView(new ArrayBuffer(2 * sound.length));
  for (let i = 0; i < sound.length; i++) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    samples.setInt16(2 * i, Math.round(MOST * Math.max(-1, Math.min(1, mean))), true);
  }
  return new Blob([head(samples.byteLength), samples], { type: "audio/wav" });
}
