"""Pictures to file bytes and back: :mod:`.codec` uses :mod:`.latents` (symbols), :mod:`.rans` and :mod:`.tables`
(coder) and :mod:`.container` (the file around them)."""
