"""Audio that is like speech, and other people's codecs (FFmpeg's, by PyAV) as the far end."""

from fractions import Fraction

import av
import numpy as np

RATE = 8000


def voice(seconds: float = 2.0, *, seed: int = 1, rate: int = RATE) -> np.ndarray:
    """Syllables of a gliding voice: harmonics of 90 to 180 Hz under two formants, with pauses between."""
    dice = np.random.default_rng(seed)
    n = int(seconds * rate)
    t = np.arange(n) / rate
    pitch = 130 + 35 * np.sin(2 * np.pi * 0.7 * t + dice.uniform(0, 6)) + 8 * np.sin(2 * np.pi * 5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    first = 500 + 200 * np.sin(2 * np.pi * 1.3 * t + dice.uniform(0, 6))
    second = 1500 + 500 * np.sin(2 * np.pi * 1.9 * t + dice.uniform(0, 6))
    wave = np.zeros(n)
    for k in range(1, 24):
        at = k * pitch
        gain = np.exp(-(((at - first) / 220) ** 2)) + 0.5 * np.exp(-(((at - second) / 320) ** 2)) + 0.02
        wave += gain * np.sin(k * phase) * (at < 3600)
    syllables = np.clip(np.sin(2 * np.pi * 2.6 * t + dice.uniform(0, 6)) + 0.6, 0, 1)
    wave *= syllables
    return (wave / np.abs(wave).max() * 12_000 + dice.normal(0, 20, n)).astype(np.int16)


def likeness(heard: np.ndarray, said: np.ndarray, *, most_lag: int = 2000) -> tuple[float, int]:
    """Best correlation of what was heard with what was said, and by how many samples it is later."""
    size = 1 << int(np.ceil(np.log2(len(heard) + len(said))))
    cross = np.fft.irfft(np.fft.rfft(heard.astype(float), size) * np.conj(np.fft.rfft(said.astype(float), size)), size)
    lag = int(cross[:most_lag].argmax())
    length = min(len(heard) - lag, len(said))
    a, b = heard[lag : lag + length].astype(float), said[:length].astype(float)
    return float(a @ b / np.sqrt(a @ a * (b @ b) + 1)), lag


def ffmpeg_encoded(pcm: np.ndarray, codec: str, *, rate: int, frame: int, **options: str) -> list[bytes]:
    """Packets of `frame` samples each, by FFmpeg."""
    context = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout, context.format = rate, "mono", "s16"
    context.time_base = Fraction(1, rate)
    context.options = options
    packets = []
    for at in range(0, len(pcm) - frame + 1, frame):
        audio = av.AudioFrame.from_ndarray(pcm[None, at : at + frame], format="s16", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = rate, at, Fraction(1, rate)
        packets += [bytes(packet) for packet in context.encode(audio)]
    return packets


def ffmpeg_decoded(packets: list[bytes], codec: str, *, rate: int) -> np.ndarray:
    """Their audio at 8 kHz, by FFmpeg."""
    context = av.CodecContext.create(codec, "r")
    context.sample_rate, context.layout = rate, "mono"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    found = []
    for data in packets:
        for frame in context.decode(av.Packet(data)):
            found += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    found += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(found)


def at_16k(pcm: np.ndarray) -> np.ndarray:
    """The same audio at 16 kHz."""
    spectrum = np.fft.rfft(pcm.astype(float))
    wide = np.zeros(len(pcm) + 1, complex)
    wide[: len(spectrum)] = spectrum
    return np.clip(np.fft.irfft(wide, 2 * len(pcm)) * 2, -32768, 32767).astype(np.int16)
