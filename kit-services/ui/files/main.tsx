import { start } from '../shared/start.tsx'
import { App } from './app.tsx'
import './files.css'

start(App)
