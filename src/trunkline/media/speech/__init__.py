"""Speech: texts and SSML to audio, by engines behind one interface. Only `voices` may be imported outside workers."""
