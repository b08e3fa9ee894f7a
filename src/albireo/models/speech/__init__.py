"""Models that write down what is said: a sound is heard once, by an encoder, and every token of the text listens to it.

One file an architecture, found by name as those of decoders/ are. A sequence of one begins with the sound: its first
positions hold, in the KV layers of the decoder, keys and values that were made of what the encoder heard; text follows.
"""

#: Transducers whose encoder could hear a sound as it comes; and models that hear samples, and say of each frame what is
#: said there.
STREAMING_TYPES = ("nemotron3_5_asr", "nemotron_asr_streaming")
SAMPLE_TYPES = ("data2vec-audio", "hubert", "omniasr_ctc", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")
